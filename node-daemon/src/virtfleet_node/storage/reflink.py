"""Copies that share their data until one is written (FICLONE of ioctl_ficlonerange(2)): XFS, Btrfs, and few others."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409
"""_IOW(0x94, 9, int), from linux/fs.h."""

_CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})

_PROBE_BYTES: Final = 4096


def clone_file(source: Path, target: Path) -> bool:
    """Make a new file with the data of another; False, and no file, where the file system cannot share data."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with source.open("rb") as origin, os.fdopen(descriptor, "wb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), _FICLONE, origin.fileno())
        except OSError as error:
            target.unlink()
            if error.errno in _CANNOT:
                return False
            raise
    return True


def can_reflink(folder: Path) -> bool | None:
    """Tell whether the file system of a folder shares data, by trying it with two nameless files; None: not tried."""
    try:
        with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
            source.write(b"\0" * _PROBE_BYTES)
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError as error:
        return False if error.errno in _CANNOT else None
    return True
