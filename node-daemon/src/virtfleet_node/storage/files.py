"""Files that appear whole or not at all, and directories that are what they seem."""

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO, Final

from virtfleet_node.core.errors import InvalidError

PARTIAL = ".partial"
"""Suffix of work in progress. Whatever has it may be removed at any time by a process that owns the folder."""

_SMALL_BYTES: Final = 1 << 20
"""As large as a document that a daemon takes."""


def make_folder(path: Path, mode: int = 0o711) -> Path:
    """Make a folder below one that exists, and check that it is one: InvalidError for a link or a file."""
    path.mkdir(mode=mode, exist_ok=True)
    check_real(path)
    return path


def check_real(path: Path) -> None:
    """Refuse a path whose last part is a symbolic link or neither folder nor regular file: InvalidError."""
    mode = path.lstat().st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InvalidError(f"{path.name} in the pool is neither a folder nor a file; an administrator must remove it.")


def publish(partial: Path, final: Path) -> None:
    """Make a finished file appear under its name, durably."""
    sync_file(partial)
    partial.replace(final)
    sync_folder(final.parent)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that is either the old or the new one after any crash."""
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    publish(partial, path)


def open_partial(path: Path, *, append: bool = False) -> BinaryIO:
    """Open work in progress for writing: a new file, or the end of the one that is there.

    Raises:
        OSError: what is there is a link, a pipe or the like, or a name of another file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    if not append:
        path.unlink(missing_ok=True)
    descriptor = os.open(path, flags | (os.O_APPEND if append else os.O_EXCL), 0o644)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.fdopen(descriptor, "ab" if append else "wb")


def write_sparse(file: BinaryIO, data: bytes) -> None:
    """Write at the end of a file; zeros become a hole, which takes no space."""
    if data.count(0) < len(data):
        file.write(data)
    else:
        file.truncate(file.tell() + len(data))
        file.seek(0, os.SEEK_END)


def partial_size(path: Path) -> int:
    """Return how much of work in progress is there, in bytes; whatever is not a regular file is removed."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return found.st_size
    path.unlink()
    return 0


def read_small(path: Path) -> bytes | None:
    """Return the content of a small file of our own; None when it is not there, or is not one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = file.read(_SMALL_BYTES + 1)
    return content if len(content) <= _SMALL_BYTES else None


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(path: Path) -> None:
    """Remove a folder with all in it; links in it are removed, never followed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def subfolders(path: Path) -> tuple[Path, ...]:
    """Return the real folders in a folder that may not exist."""
    if not path.is_dir():
        return ()
    return tuple(Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
