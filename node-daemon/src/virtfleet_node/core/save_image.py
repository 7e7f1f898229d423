"""The head of libvirt's save image, in which the domain's description lies. Pure.

    fixed part, description, NUL, libvirt's cookie, NUL, padding, and then what QEMU has written, perhaps compressed.

As in src/qemu/qemu_saveimage.h of libvirt, version 2. Changing the description needs room for it: libvirt pads it by
64 KiB, and a head that has become larger is as much longer as `ALIGNMENT` allows, so that the rest can share blocks.
"""

import struct
from dataclasses import dataclass
from typing import Final

_FIXED: Final = struct.Struct("<16sIIIII56s")
_MAGIC: Final = b"LibvirtQemudSave"
_VERSION: Final = 2

FIXED_BYTES: Final = _FIXED.size
MAX_HEAD_BYTES: Final = 16 << 20
"""A description has some ten thousand bytes."""

ALIGNMENT: Final = 4096
"""Block size of file systems that share blocks."""


PLAIN: Final = 0
GZIP: Final = 1
"""What libvirt calls the ways in which QEMU's part may be compressed; it decompresses it by itself."""

_COMPRESSED: Final = struct.Struct("<I")
_COMPRESSED_AT: Final = 16 + 3 * _COMPRESSED.size


@dataclass(frozen=True)
class SaveImageHead:
    """Everything before what QEMU has written."""

    description: str
    """The domain's XML."""
    head_bytes: int
    """Where QEMU's part begins."""
    cookie: bytes
    was_running: int
    compressed: int
    unused: bytes


def head_bytes(fixed: bytes) -> int:
    """Return the length of the whole head by its fixed part; ValueError when it is none."""
    try:
        magic, version, data_bytes, *_ = _FIXED.unpack(fixed)
    except struct.error:
        raise ValueError("it is too short") from None
    if magic != _MAGIC:
        raise ValueError("it is none of libvirt's, or was never completed")
    if version != _VERSION:
        raise ValueError(f"its version is {version}, which this daemon does not know")
    if data_bytes > MAX_HEAD_BYTES:
        raise ValueError(f"its description has {data_bytes} bytes")
    return FIXED_BYTES + int(data_bytes)


def parse_head(content: bytes) -> SaveImageHead:
    """Return what a head says, all of which is given; ValueError when it is none."""
    end = head_bytes(content[:FIXED_BYTES])
    _, _, _, was_running, compressed, cookie_at, unused = _FIXED.unpack_from(content)
    data = content[FIXED_BYTES:end]
    if len(content) < end or cookie_at > len(data):
        raise ValueError("it ends within its description")
    description = data[: cookie_at or len(data)].split(b"\0", 1)[0]
    cookie = data[cookie_at:].split(b"\0", 1)[0] if cookie_at else b""
    return SaveImageHead(description.decode(), FIXED_BYTES + len(data), cookie, was_running, compressed, unused)


def build_head(head: SaveImageHead, description: str) -> bytes:
    """Return the same head with another description: as long as before, or longer by a multiple of `ALIGNMENT`."""
    text = description.encode() + b"\0"
    cookie = head.cookie + b"\0" if head.cookie else b""
    needed = FIXED_BYTES + len(text) + len(cookie)
    longer = max(0, -(-(needed - head.head_bytes) // ALIGNMENT)) * ALIGNMENT
    data_bytes = head.head_bytes + longer - FIXED_BYTES
    cookie_at = len(text) if cookie else 0
    fixed = _FIXED.pack(_MAGIC, _VERSION, data_bytes, head.was_running, head.compressed, cookie_at, head.unused)
    return fixed + (text + cookie).ljust(data_bytes, b"\0")


def read_compression(fixed: bytes) -> int:
    """Return how QEMU's part is compressed by the fixed part of a head; ValueError when it is none."""
    head_bytes(fixed)
    number: int = _COMPRESSED.unpack_from(fixed, _COMPRESSED_AT)[0]
    return number


def with_compression(fixed: bytes, number: int) -> bytes:
    """Return the fixed part of a head that names another compression; ValueError when it is none."""
    head_bytes(fixed)
    return fixed[:_COMPRESSED_AT] + _COMPRESSED.pack(number) + fixed[_COMPRESSED_AT + _COMPRESSED.size :]
