"""Overwrite a file with zeros before it is removed.

From its end to its beginning: a part that is overwritten is cut off once that is on the disk, so that after any crash
the work goes on where it was. Its header stays until it is removed, so that it is known as a disk as long as it is
there; no guest writes there. Only what takes blocks is written. What the file system, a copy that shares blocks, or the
drive itself keeps elsewhere is out of reach.
"""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from virtfleet_node.core.qcow2 import HEADER_BYTES
from virtfleet_node.storage.files import check_real

_PART_BYTES: Final = 64 << 20
"""Overwritten and made durable at a time; a stop is noticed after each."""

_ZEROS: Final = bytes(1 << 20)


def wipe_file(path: Path, progress: Callable[[float], None], stopped: Callable[[], bool]) -> bool:
    """Overwrite a qcow2 file but for its header; return whether it is done, or was stopped before. Blocks.

    `progress` is told the percentage of what was left when it began.

    Raises:
        InvalidError: the path is a link or no file.
    """
    check_real(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        total = size = os.fstat(descriptor).st_size
        while size > HEADER_BYTES:
            if stopped():
                return False
            start = max(HEADER_BYTES, (size - 1) // _PART_BYTES * _PART_BYTES)
            for at, length in _extents(descriptor, start, size):
                _write_zeros(descriptor, at, length)
            os.fsync(descriptor)
            os.ftruncate(descriptor, start)
            size = start
            progress(100.0 * (total - size) / total)
    finally:
        os.close(descriptor)
    return True


def _extents(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of what takes blocks in a part of a file."""
    at = start
    while at < end:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end of the file
                return
            raise
        if data >= end:
            return
        at = min(os.lseek(descriptor, data, os.SEEK_HOLE), end)
        yield data, at - data


def _write_zeros(descriptor: int, at: int, length: int) -> None:
    while length > 0:
        written = os.pwrite(descriptor, _ZEROS[:length], at)
        at, length = at + written, length - written
