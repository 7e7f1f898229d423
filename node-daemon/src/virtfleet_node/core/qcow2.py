"""The header of a qcow2 file, parsed from bytes that a stranger wrote. Nothing here opens a file or follows a name.

Source: docs/interop/qcow2.txt of QEMU.
"""

import struct
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"QFI\xfb"

HEADER_BYTES: Final = 65536
"""As much as is read of a file: a header with its extensions fits the first cluster, and the smallest is 512 bytes."""

MAX_VIRTUAL_BYTES: Final = 64 << 40
"""64 TiB, the largest disk that virtfleet serves; far less than what an L1 table of 32 MiB can describe."""

_DATA_FILE: Final = 1 << 2
_KNOWN_INCOMPATIBLE: Final = 0b11111
"""dirty, corrupt, external data file, compression type, extended L2 entries."""
_CORRUPT: Final = 1 << 1
_BACKING_NAME_BYTES: Final = 1023
_MAX_L1_ENTRIES: Final = (32 << 20) // 8  # QEMU's own bound, QCOW_MAX_L1_SIZE
_EXTENSION_BACKING_FORMAT: Final = 0xE2792ACA
_EXTENSION_DATA_FILE: Final = 0x44415441


class UnsafeImageError(ValueError):
    """The header asks for something that an image must not ask for, or is not a header."""


@dataclass(frozen=True)
class Header:
    """What a header says."""

    version: int
    virtual_size_bytes: int
    cluster_bytes: int
    backing_file: str | None
    backing_format: str | None
    encrypted: bool
    external_data: bool
    snapshots: int


def parse_header(data: bytes) -> Header:
    """Parse the first HEADER_BYTES of a file; UnsafeImageError says what is wrong with them."""
    if len(data) < 104 or not data.startswith(MAGIC):  # noqa: PLR2004 -- length of a version 3 header
        raise UnsafeImageError("it has no complete qcow2 header")
    version, backing_offset, backing_bytes, cluster_bits, size, crypt, l1_entries = struct.unpack_from(
        ">IQIIQII", data, 4
    )
    if version not in (2, 3):
        raise UnsafeImageError(f"qcow2 version {version} is not known")
    if not 9 <= cluster_bits <= 21:  # noqa: PLR2004 -- 512 bytes to 2 MiB, QEMU's own bounds
        raise UnsafeImageError(f"a cluster of 2^{cluster_bits} bytes is not valid")
    if size > MAX_VIRTUAL_BYTES:
        raise UnsafeImageError(f"its virtual size of {size} bytes is above the limit of {MAX_VIRTUAL_BYTES} (64 TiB)")
    if l1_entries > _MAX_L1_ENTRIES:
        raise UnsafeImageError(f"an L1 table of {l1_entries} entries is not valid")
    (snapshots,) = struct.unpack_from(">I", data, 60)
    incompatible = struct.unpack_from(">Q", data, 72)[0] if version == 3 else 0  # noqa: PLR2004 -- features came with 3
    if incompatible & ~_KNOWN_INCOMPATIBLE or incompatible & _CORRUPT:
        raise UnsafeImageError("it is marked corrupt or has features that are not known")
    extensions = _extensions(data, version)
    return Header(
        version=version,
        virtual_size_bytes=size,
        cluster_bytes=1 << cluster_bits,
        backing_file=_text(data, backing_offset, backing_bytes) if backing_offset else None,
        backing_format=extensions.get(_EXTENSION_BACKING_FORMAT, b"").decode("ascii", "replace") or None,
        encrypted=crypt != 0,
        external_data=bool(incompatible & _DATA_FILE) or _EXTENSION_DATA_FILE in extensions,
        snapshots=snapshots,
    )


def check_standalone(header: Header) -> None:
    """Refuse a header of an image that would need, or read, any other file: UnsafeImageError."""
    if header.backing_file is not None:
        raise UnsafeImageError("it names a backing file; flatten it with `qemu-img convert`")
    if header.external_data:
        raise UnsafeImageError("it names an external data file; make it whole with `qemu-img convert`")
    if header.encrypted:
        raise UnsafeImageError("it is encrypted; decrypt it with `qemu-img convert`")
    if header.snapshots:
        raise UnsafeImageError("it holds internal snapshots; drop them with `qemu-img convert`")
    if header.virtual_size_bytes == 0:
        raise UnsafeImageError("its virtual size is zero")


def _text(data: bytes, offset: int, length: int) -> str:
    if not 0 < length <= _BACKING_NAME_BYTES or offset + length > len(data):
        raise UnsafeImageError("the name of its backing file is out of bounds")
    return data[offset : offset + length].decode("utf-8", "replace")


def _extensions(data: bytes, version: int) -> dict[int, bytes]:
    """Return the header extensions by type; they end with type 0."""
    offset = 72 if version == 2 else struct.unpack_from(">I", data, 100)[0]  # noqa: PLR2004 -- length of header 2
    found: dict[int, bytes] = {}
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from(">II", data, offset)
        if kind == 0:
            return found
        if offset + 8 + length > len(data):
            raise UnsafeImageError("a header extension is out of bounds")
        found[kind] = data[offset + 8 : offset + 8 + length]
        offset += 8 + (length + 7) // 8 * 8
    return found
