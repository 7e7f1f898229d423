"""A hypervisor host inside an emulated machine, with hardware that this machine has not: see nested_machine.py.

It starts within seconds from a state that was saved once per machine, after libvirt had found out what its QEMU can do.
"""

import fcntl
import hashlib
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtfleet_dev.nested_image import forget_unused, nested_files
from virtfleet_dev.nested_machine import Places, machine_arguments, qemu_command
from virtfleet_dev.paths import checkout
from virtfleet_dev.qmp import Qmp

BOOT_SECONDS = 600.0  # 30 s on an idle machine, minutes on one that has ten times as much to do as it can
RESUME_SECONDS = 240.0  # six seconds on an idle machine
READY = "NESTED-READY"
PYTHON_PACKAGES = "/opt/site-packages"
"""Where the host has the third-party packages of the checkout's Python environment."""

_WARM = """\
set -e
virsh capabilities >/dev/null
virsh domcapabilities >/dev/null
virsh nodedev-list >/dev/null
cat > /root/warm.xml <<'X'
<domain type='qemu'><name>warm</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><memballoon model='none'/></devices></domain>
X
virsh create /root/warm.xml >/dev/null
virsh destroy warm >/dev/null
rm /root/warm.xml
modprobe -a vfio_pci igbvf mtty mbochs
PYTHONPATH=/opt/site-packages python3 -c 'import pytest, pytest_asyncio, pydantic, lxml.etree, aiohttp, libvirt'
sync
"""


class NestedHostError(Exception):
    """The nested host did not do what it was asked; the text has its last words."""


@dataclass(frozen=True)
class Saved:
    """A state to start from, and the disk that belongs to it."""

    disk: Path
    state: Path


class NestedHost:
    """One nested host, as long as it runs."""

    def __init__(self, directory: Path) -> None:
        """Take the directory for its disk and sockets; short, since a socket's path has at most 107 characters."""
        self.directory = directory
        self._files = nested_files()
        self._qemu: subprocess.Popen[bytes] | None = None
        self._places: Places | None = None

    @property
    def console(self) -> str:
        """Return what its kernel and systemd have written."""
        return self._file("console.log").read_text(errors="replace") if self._file("console.log").exists() else ""

    def up(self) -> None:
        """Start it from the saved state, which is made when it is missing; the checkout is at its own path there."""
        saved = _saved_state(self._files)
        self._start(saved.disk, "-incoming", f"file:{saved.state}")
        self._wait(self._file("qmp").exists, RESUME_SECONDS, "its start")
        qmp = Qmp(self._file("qmp"))
        qmp.resume()
        qmp.close()
        self._wait(lambda: self._ssh("true").returncode == 0, RESUME_SECONDS, "ssh after a saved state")
        here = shlex.quote(str(checkout()))
        self.run(f"date -s @{time.time():.3f} >/dev/null; mkdir -p {here}; mount -t 9p"
                 f" -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro shared {here}")  # fmt: skip

    def down(self) -> None:
        """End it at once; nothing of it is needed any more."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def run(self, script: str) -> str:
        """Return what a shell script printed in the host; NestedHostError when it fails."""
        done = self._ssh(script)
        if done.returncode:
            raise NestedHostError(f"{script}: {done.stderr.strip()} {done.stdout.strip()}")
        return done.stdout

    def command(self, script: str) -> Sequence[str]:
        """Return the command line that runs a shell script in the host."""
        assert self._places is not None, "the host is not up"  # noqa: S101 -- a mistake of the caller
        return (
            *("ssh", "-q", "-F", "none", "-i", str(self._files / "key"), "-p", str(self._places.port)),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10"),
            *("-o", "ServerAliveInterval=30", "-c", "aes128-gcm@openssh.com"),
            *("root@127.0.0.1", script),
        )

    def boot_and_save(self, folder: Path) -> None:
        """Boot it, warm it up, and leave its state and disk in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start(self._files / "root.ext4", disk=folder / "disk.qcow2")
            self._wait(lambda: READY in self.console, BOOT_SECONDS, "its boot")
            self._wait(lambda: self._ssh("true").returncode == 0, RESUME_SECONDS, "ssh")
            self.run(_WARM)
            qmp = Qmp(self._file("qmp"))
            qmp.save(folder / "state")
            qmp.execute("quit")
            qmp.close()
            if self._qemu is not None:
                self._qemu.wait(timeout=60)
        finally:
            self.down()

    def _start(self, backing: Path, *more: str, disk: Path | None = None) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in ("console.log", "qmp"):
            self._file(name).unlink(missing_ok=True)
        disk = disk or self._file("disk.qcow2")
        form = "raw" if backing.suffix == ".ext4" else "qcow2"
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", form, str(disk)]
        subprocess.run(create, check=True, capture_output=True)
        self._places = Places(disk, checkout(), _free_port(), self._file("console.log"), self._file("qmp"))
        words = (*qemu_command(self._files / "tools"), *machine_arguments(self._files, self._places), *more)
        with self._file("qemu.log").open("wb") as log:
            # It ends with the thread that has started it, whatever becomes of that.
            guarded = ["setpriv", "--pdeathsig", "KILL", "--", *words]
            self._qemu = subprocess.Popen(guarded, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _ssh(self, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.command(script), capture_output=True, text=True, check=False, timeout=600)

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if self._qemu is None or self._qemu.poll() is not None or time.monotonic() > end:
                said = self._file("qemu.log").read_text(errors="replace")[-2000:] + self.console[-2000:]
                raise NestedHostError(f"the nested host did not get to {what} in {seconds:.0f} s:\n{said}")
            time.sleep(0.1)

    def _file(self, name: str) -> Path:
        return self.directory / name


def _saved_state(files: Path) -> Saved:
    """Return the state of a host that is up, made when missing (60 s)."""
    same = Places(Path("disk"), Path("shared"), 0, Path("console"), Path("control"))
    digest = hashlib.sha256("\0".join((*machine_arguments(files, same), _WARM)).encode()).hexdigest()[:16]
    folder = files / f"warm-{digest}"
    with _locked(files / "lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            forget_unused(files, "warm-*")
            NestedHost(folder / "run").boot_and_save(folder)
            shutil.rmtree(folder / "run")
            (folder / "complete").touch()
        folder.touch()
    return Saved(folder / "disk.qcow2", folder / "state")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
