"""A viewer of a display: as much of VNC (RFC 6143) as it takes to see one picture, in raw pixels of 32 bits."""

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

VERSION = b"RFB 003.008\n"
_NO_AUTHENTICATION = 1
_PIXEL_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_CHARACTER = 9 * 16
_RAW = 0
_DESKTOP_SIZE = -223


class Pipe:
    """Reads of a given size, from reads of any."""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read
        self._held = bytearray()

    async def take(self, size: int) -> bytes:
        """Return so many bytes; EOFError at the end."""
        while len(self._held) < size:
            data = await self._read()
            if not data:
                raise EOFError("the display has ended")
            self._held += data
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


@dataclass
class Picture:
    """What the display shows."""

    width: int
    height: int
    pixels: bytearray

    @property
    def dots(self) -> list[bytes]:
        """Return the pixels, four bytes each."""
        return [bytes(self.pixels[n : n + 4]) for n in range(0, len(self.pixels), 4)]

    @property
    def colours(self) -> int:
        """Return how many colours there are; one is an empty screen."""
        return len(set(self.dots))

    def is_like(self, other: "Picture") -> bool:
        """Tell whether it shows the same, but for a cursor that blinks."""
        different = sum(one != two for one, two in zip(self.dots, other.dots, strict=True))
        return (self.width, different <= _CHARACTER) == (other.width, True)


async def look(read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> Picture:
    """Shake hands, ask for one whole picture, and return it."""
    pipe = Pipe(read)
    assert await pipe.take(12) == VERSION
    await write(VERSION)
    (count,) = await pipe.take(1)
    assert _NO_AUTHENTICATION in await pipe.take(count)
    await write(bytes([_NO_AUTHENTICATION]))
    assert await pipe.take(4) == bytes(4), "refused"
    await write(b"\x01")  # others may look as well
    width, height, _, length = struct.unpack(">HH16sI", await pipe.take(24))
    await pipe.take(length)
    await write(b"\x00\x00\x00\x00" + _PIXEL_FORMAT)
    await write(struct.pack(">BxHii", 2, 2, _RAW, _DESKTOP_SIZE))
    picture, covered = Picture(width, height, bytearray(4 * width * height)), 0
    await write(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    while covered < picture.width * picture.height:
        kind, _, rectangles = struct.unpack(">BBH", await pipe.take(4))
        assert kind == 0, kind
        for _ in range(rectangles):
            covered += await _rectangle(pipe, picture)
            if not covered:  # it has another size now
                await write(struct.pack(">BBHHHH", 3, 0, 0, 0, picture.width, picture.height))
    return picture


async def _rectangle(pipe: Pipe, picture: Picture) -> int:
    """Read one rectangle and return how many pixels it has; none of a new size."""
    x, y, width, height, encoding = struct.unpack(">HHHHi", await pipe.take(12))
    if encoding == _DESKTOP_SIZE:
        picture.width, picture.height, picture.pixels = width, height, bytearray(4 * width * height)
        return 0
    assert encoding == _RAW, encoding
    for row in range(y, y + height):
        start = 4 * (row * picture.width + x)
        picture.pixels[start : start + 4 * width] = await pipe.take(4 * width)
    return width * height
