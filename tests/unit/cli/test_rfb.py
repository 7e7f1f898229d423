"""One picture by VNC from servers that do as the protocol says, and from some that do not; and how it is written."""

import asyncio
import struct
import zlib

import pytest

from virtfleet_cli.rfb import Picture, RfbError, look
from virtfleet_cli.screenshot import encode_png

VERSION = b"RFB 003.008\n"
SECURITY = b"\x02\x02\x01" + bytes(4)
NAME = b"QEMU"


def init(width: int, height: int, name: bytes = NAME, length: int | None = None) -> bytes:
    return struct.pack(">HH16xI", width, height, len(name) if length is None else length) + name


def update(*rectangles: bytes) -> bytes:
    return struct.pack(">BxH", 0, len(rectangles)) + b"".join(rectangles)


def raw(x: int, y: int, width: int, height: int, pixel: bytes) -> bytes:
    return struct.pack(">HHHHi", x, y, width, height, 0) + pixel * (width * height)


def resize(width: int, height: int) -> bytes:
    return struct.pack(">HHHHi", 0, 0, width, height, -223)


def look_at(*said: bytes, piece: int = 7) -> tuple[Picture, bytes]:
    """Look at a server that says this whatever it is told; return the picture and what the server was told."""
    stream, told = b"".join(said), bytearray()
    pieces = iter([stream[n : n + piece] for n in range(0, len(stream), piece)])

    async def read() -> bytes:
        return next(pieces, b"")

    async def write(data: bytes) -> None:
        told.extend(data)

    return asyncio.run(look(read, write)), bytes(told)


RED, BLUE = b"\xff\x00\x00\x00", b"\x00\x00\xff\x00"


def test_a_picture_in_parts_with_other_things_in_between() -> None:
    bell, cut = b"\x02", b"\x03\x00\x00\x00" + struct.pack(">I", 3) + b"abc"
    picture, told = look_at(
        VERSION, SECURITY, init(2, 2), bell, update(raw(0, 0, 2, 1, RED)), cut, update(raw(0, 1, 2, 1, BLUE))
    )
    assert (picture.width, picture.height, bytes(picture.pixels)) == (2, 2, RED * 2 + BLUE * 2)
    assert told.startswith(VERSION + b"\x01\x01")
    assert told.endswith(struct.pack(">BBHHHH", 3, 0, 0, 0, 2, 2))


def test_a_picture_that_changes_its_size_is_asked_for_again() -> None:
    picture, told = look_at(VERSION, SECURITY, init(4, 4), update(resize(1, 2)), update(raw(0, 0, 1, 2, BLUE)))
    assert (picture.width, picture.height, bytes(picture.pixels)) == (1, 2, BLUE * 2)
    assert told.endswith(struct.pack(">BBHHHH", 3, 0, 0, 0, 1, 2))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ((b"HTTP/1.1 400",), "does not speak VNC"),
        ((VERSION, b"\x01\x02"), "asks for a password"),
        ((VERSION, b"\x01\x01", b"\x00\x00\x00\x01"), "refuses to be seen"),
        ((VERSION, SECURITY, init(65535, 65535)), "says that it has 65535 by 65535 pixels"),
        ((VERSION, SECURITY, init(0, 0)), "says that it has 0 by 0 pixels"),
        ((VERSION, SECURITY, init(2, 2, length=0xFFFFFFFF)), "says more than fits"),
        ((VERSION, SECURITY, init(2, 2), update(raw(1, 0, 2, 2, RED))), "sends a part that was not asked for"),
        ((VERSION, SECURITY, init(2, 2), update(struct.pack(">HHHHi", 0, 0, 2, 2, 16))), "sends a part that"),
        ((VERSION, SECURITY, init(2, 2), update(resize(60000, 60000))), "says that it has 60000 by 60000 pixels"),
        ((VERSION, SECURITY, init(2, 2), b"\x09"), "says what was not asked for"),
        ((VERSION, SECURITY, init(2, 2), b"\x03\x00\x00\x00\xff\xff\xff\xff"), "says more than fits"),
        ((VERSION, SECURITY, init(2, 2), update(raw(0, 0, 2, 1, RED))), "ended before it was seen whole"),
    ],
)
def test_a_server_that_does_otherwise_is_told_of_in_a_sentence(said: tuple[bytes, ...], sentence: str) -> None:
    with pytest.raises(RfbError, match=sentence):
        look_at(*said)


def test_the_file_holds_the_rows() -> None:
    png = encode_png(Picture(2, 2, bytearray(RED + BLUE + BLUE + RED)))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    parts, at = {}, 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert png[at + 8 + size : at + 12 + size] == struct.pack(">I", zlib.crc32(kind + data))
        parts[kind], at = data, at + 12 + size
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    assert parts[b"IHDR"] == struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    red, blue = b"\xff\x00\x00", b"\x00\x00\xff"
    assert zlib.decompress(parts[b"IDAT"]) == b"\x00" + red + blue + b"\x00" + blue + red
