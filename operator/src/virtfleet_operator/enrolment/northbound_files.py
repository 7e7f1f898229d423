"""The operator's certificate at OVN's northbound database, as files: OVSDB's Python library reads nothing else.

They last as long as the process. Every process has a folder of its own and holds a lock on it; what a killed one has
left behind is removed by the next, which gets the lock.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.certificates import encode_key, generate_key, writer_purpose
from virtfleet_operator.enrolment.contexts import RENEW_AFTER


@dataclass(frozen=True)
class NorthboundFiles:
    """Paths for `ovs.stream.Stream.ssl_set_private_key_file` and its like; it reads them at every connect."""

    key: Path
    certificate: Path
    ca: Path


class NorthboundAccess:
    """Makes the files on entering, removes them on leaving."""

    def __init__(self, authority: Authority, base: Path | None = None) -> None:
        """Take the northbound authority, and the folder in which processes have theirs."""
        self._authority = authority
        self._base = base or Path(tempfile.gettempdir(), f"virtfleet-operator-{os.getuid()}")
        self._key = generate_key()
        self._issued_at: datetime | None = None
        self._lock = -1
        self._folder = Path()

    @property
    def files(self) -> NorthboundFiles:
        """Return where the files are, the same for as long as the process lives."""
        return NorthboundFiles(self._folder / "tls.key", self._folder / "tls.crt", self._folder / "ca.crt")

    def __enter__(self) -> Self:
        """Make the files.

        Raises:
            PermissionError: the base folder is another user's, or open to others.
        """
        with _locked(self._base):
            _sweep(self._base)
            self._folder = Path(tempfile.mkdtemp(prefix="northbound-", dir=self._base))
            self._lock = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        _write(self.files.key, encode_key(self._key))
        _write(self.files.ca, self._authority.ca_pem.encode())
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def refresh(self) -> None:
        """Replace the certificate when two thirds of its life are over. The key stays, so the pair always fits."""
        now = self._authority.clock()
        if self._issued_at is None or now - self._issued_at >= RENEW_AFTER:
            _write(self.files.certificate, self._authority.sign(self._key.public_key(), writer_purpose()))
            self._issued_at = now


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """Hold the base folder, made if there is none, against other processes that sweep or begin."""
    with suppress(FileExistsError):
        base.mkdir(mode=0o700)
    # Below a folder that anybody may write, the name may have been taken by somebody else, as a link even.
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{base} must be this user's, with mode 0700: remove it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(base: Path) -> None:
    """Remove the folders of processes that are gone: nobody holds their locks."""
    for folder in base.glob("northbound-*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # a process that ends removes its own
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # in use
        finally:
            os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once; no other user may ever read it."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)
