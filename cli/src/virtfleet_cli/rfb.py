"""As much of VNC (RFC 6143) as one picture takes. The server is believed nothing: a guest may have taken it over."""

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

MOST_PIXELS: Final = 7680 * 4320
"""Of a picture: 8K, with 130 MB."""

BYTES_PER_PIXEL: Final = 4
"""Red, green, blue, and one that means nothing."""

_VERSION: Final = b"RFB 003.008\n"
_NO_AUTHENTICATION: Final = 1
_PIXEL_FORMAT: Final = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)
_RAW: Final = 0
_DESKTOP_SIZE: Final = -223
_UPDATE, _BELL, _CUT_TEXT = 0, 2, 3
_LONGEST_TEXT: Final = 1 << 20


class RfbError(Exception):
    """The server says what cannot be understood, or ends; the text is a sentence."""


@dataclass
class Picture:
    """What a display shows, row by row from the top."""

    width: int
    height: int
    pixels: bytearray


class _Pipe:
    """Reads of a given size, from reads of any."""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read
        self._held = bytearray()

    async def take(self, size: int) -> bytes:
        while len(self._held) < size:
            data = await self._read()
            if not data:
                raise RfbError("The display ended before it was seen whole.")
            self._held += data
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


async def look(read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> Picture:
    """Shake hands, ask for one whole picture, and return it; RfbError. `read` returns nothing at the end."""
    pipe = _Pipe(read)
    picture = await _shake_hands(pipe, write)
    await write(b"\x00\x00\x00\x00" + _PIXEL_FORMAT)
    await write(struct.pack(">BxHii", 2, 2, _RAW, _DESKTOP_SIZE))
    await _ask(picture, write)
    left = picture.width * picture.height
    while left > 0:
        for _ in range(await _next_update(pipe)):
            x, y, width, height, encoding = struct.unpack(">HHHHi", await pipe.take(12))
            if encoding == _DESKTOP_SIZE:
                picture = _blank(width, height)
                left = width * height
                await _ask(picture, write)
            elif encoding == _RAW and x + width <= picture.width and y + height <= picture.height:
                await _fill(picture, x, y, width, height, pipe)
                left -= width * height
            else:
                raise RfbError("The display sends a part that was not asked for.")
    return picture


async def _shake_hands(pipe: _Pipe, write: Callable[[bytes], Awaitable[None]]) -> Picture:
    if await pipe.take(len(_VERSION)) != _VERSION:
        raise RfbError("The display does not speak VNC as QEMU does.")
    await write(_VERSION)
    (count,) = await pipe.take(1)
    if _NO_AUTHENTICATION not in await pipe.take(count):
        raise RfbError("The display asks for a password.")
    await write(bytes([_NO_AUTHENTICATION]))
    if await pipe.take(4) != bytes(4):
        raise RfbError("The display refuses to be seen.")
    await write(b"\x01")  # others may look as well
    width, height, length = struct.unpack(">HH16xI", await pipe.take(24))
    await pipe.take(_bounded(length))
    return _blank(width, height)


async def _next_update(pipe: _Pipe) -> int:
    """Return how many parts of the picture follow, after whatever else the server says before."""
    while (kind := (await pipe.take(1))[0]) != _UPDATE:
        if kind == _CUT_TEXT:
            (length,) = struct.unpack(">3xI", await pipe.take(7))
            await pipe.take(_bounded(length))
        elif kind != _BELL:
            raise RfbError("The display says what was not asked for.")
    (count,) = struct.unpack(">xH", await pipe.take(3))
    return int(count)


async def _ask(picture: Picture, write: Callable[[bytes], Awaitable[None]]) -> None:
    await write(struct.pack(">BBHHHH", 3, 0, 0, 0, picture.width, picture.height))


async def _fill(picture: Picture, x: int, y: int, width: int, height: int, pipe: _Pipe) -> None:
    for row in range(y, y + height):
        start = BYTES_PER_PIXEL * (row * picture.width + x)
        size = BYTES_PER_PIXEL * width
        picture.pixels[start : start + size] = await pipe.take(size)


def _blank(width: int, height: int) -> Picture:
    if not 0 < width * height <= MOST_PIXELS:
        raise RfbError(f"The display says that it has {width} by {height} pixels.")
    return Picture(width, height, bytearray(BYTES_PER_PIXEL * width * height))


def _bounded(length: int) -> int:
    if length > _LONGEST_TEXT:
        raise RfbError("The display says more than fits.")
    return length
