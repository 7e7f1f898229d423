"""What a downloaded file is, and whether it may be used: by its first bytes, then by qemu-img in a cage.

The format is decided here, once, and named explicitly ever after; nothing is probed when a guest starts.
"""

import os
from pathlib import Path
from typing import Final

from virtfleet_api.image import ImageFormat
from virtfleet_node.core.errors import InvalidError, UnavailableError
from virtfleet_node.core.formats import TAIL_BYTES, foreign_format
from virtfleet_node.core.qcow2 import (
    HEADER_BYTES,
    MAGIC,
    MAX_VIRTUAL_BYTES,
    UnsafeImageError,
    check_standalone,
    parse_header,
)
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.failures import ImportFailedError

_SECTOR_BYTES: Final = 512
_KERNEL_MAGIC: Final = (514, b"HdrS")  # Documentation/arch/x86/boot.rst
_KERNEL_BYTES: Final = 512 << 20
_FIRST_DESCRIPTOR: Final = 16 * 2048
_DESCRIPTOR_BYTES: Final = 2048
_ISO_BYTES: Final = 128 << 30
"""The largest disc that there is (BDXL); guests address no more of a CD drive than 2^32 blocks anyway."""


async def probe_disk(path: Path) -> tuple[ImageFormat, int]:
    """Return format and virtual size in bytes of a disk image; ImportFailedError when it may not be used."""
    head, tail = _read_ends(path)
    size = path.stat().st_size
    if size == 0:
        raise ImportFailedError("UnsupportedFormat", "The file is empty.")
    if head.startswith(MAGIC):
        return ImageFormat.QCOW2, await _probe_qcow2(path, head)
    _refuse_foreign(head, tail)
    if size % _SECTOR_BYTES or size > MAX_VIRTUAL_BYTES:
        raise ImportFailedError(
            "UnsupportedFormat",
            f"The file is no qcow2, and with {size} bytes no raw disk: those are whole sectors of 512.",
        )
    return ImageFormat.RAW, size


async def _probe_qcow2(path: Path, head: bytes) -> int:
    try:
        header = parse_header(head)
        check_standalone(header)
    except UnsafeImageError as error:
        raise ImportFailedError("UnsafeImage", f"The image is refused: {error}.") from None
    try:
        await qemu_img.check_image(path, ImageFormat.QCOW2)
    except (InvalidError, UnavailableError) as error:
        raise ImportFailedError("UnsafeImage", f"The image is damaged or too costly to check: {error}") from None
    return header.virtual_size_bytes


def probe_iso(path: Path) -> int:
    """Return the size in bytes of a CD or DVD image; ImportFailedError when it is none.

    What stands before the file system, such as the boot sector of images for USB sticks, is no harm unless it is the
    beginning of another format.
    """
    head, tail = _read_ends(path)
    if head.startswith(MAGIC):
        raise ImportFailedError("UnsupportedFormat", "The file is qcow2, not a CD or DVD image: write type: Disk.")
    _refuse_foreign(head, tail)
    size = path.stat().st_size
    if not _has_optical_file_system(head):
        raise ImportFailedError(
            "UnsupportedFormat", "The file is no CD or DVD image: it has no ISO 9660 or UDF volume descriptor."
        )
    if size > _ISO_BYTES:
        raise ImportFailedError("TooLarge", f"The file is larger than any disc ({_ISO_BYTES >> 30} GiB).")
    return size


def _has_optical_file_system(head: bytes) -> bool:
    """Look at the first volume descriptors: ECMA-119 8.1 (ISO 9660), ECMA-167 2/9.1 (UDF)."""
    first, second = (head[at + 1 : at + 6] for at in (_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _DESCRIPTOR_BYTES))
    return first == b"CD001" or (first == b"BEA01" and second in {b"NSR02", b"NSR03"})


def _read_ends(path: Path) -> tuple[bytes, bytes]:
    """Return the first and the last bytes of a file."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        file.seek(-min(TAIL_BYTES, path.stat().st_size), os.SEEK_END)
        return head, file.read(TAIL_BYTES)


def _refuse_foreign(head: bytes, tail: bytes) -> None:
    if name := foreign_format(head, tail):
        raise ImportFailedError(
            "UnsupportedFormat", f"The file is {name}; convert it to qcow2 or raw with `qemu-img convert` first."
        )


def probe_kernel(path: Path) -> int:
    """Return the size in bytes of a bootable Linux kernel for x86; ImportFailedError when the file is none."""
    offset, magic = _KERNEL_MAGIC
    with path.open("rb") as file:
        head = file.read(offset + len(magic))
    if head[offset:] != magic:
        raise ImportFailedError("UnsupportedFormat", "The file is no Linux kernel (bzImage).")
    size = path.stat().st_size
    if size > _KERNEL_BYTES:
        raise ImportFailedError("TooLarge", "The file is larger than any kernel (512 MiB).")
    return size
