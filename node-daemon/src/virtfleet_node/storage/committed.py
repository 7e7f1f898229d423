"""What disks of a pool may grow to: the sizes in the headers of all of them, whoever they belong to."""

import os
from pathlib import Path

from virtfleet_node.core.qcow2 import HEADER_BYTES, UnsafeImageError, parse_header
from virtfleet_node.storage.files import subfolders


def read_committed(disks: Path) -> int:
    """Return the sum of the sizes that guests see, in bytes, of all disks below <pool>/disks."""
    return sum(_size(entry) for folder in subfolders(disks) for entry in _files(folder))


def _files(folder: Path) -> tuple[Path, ...]:
    try:
        found = tuple(os.scandir(folder))
    except FileNotFoundError:
        return ()  # its machine was removed while we looked
    return tuple(Path(e.path) for e in found if e.name.endswith(".qcow2") and e.is_file(follow_symlinks=False))


def _size(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return parse_header(file.read(HEADER_BYTES)).virtual_size_bytes
    except (OSError, UnsafeImageError):
        return 0
