"""A picture of a machine's display, as PNG (RFC 2083)."""

import asyncio
import struct
import zlib
from typing import Final

import click
from aiohttp import WSMsgType

from virtfleet_cli.cluster import Cluster
from virtfleet_cli.errors import CliError, UnavailableError
from virtfleet_cli.rfb import Picture, RfbError, look

SECONDS: Final = 30.0
"""A whole picture has some MB."""

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


async def take_picture(cluster: Cluster, name: str) -> Picture:
    """Return what a machine's display shows; CliError."""
    try:
        async with asyncio.timeout(SECONDS), cluster.open_display(name) as display:

            async def read() -> bytes:
                message = await display.receive()
                return message.data if message.type is WSMsgType.BINARY else b""

            return await look(read, display.send_bytes)
    except TimeoutError:
        raise UnavailableError(f"The display was not seen within {SECONDS:.0f} s.") from None
    except ConnectionError:
        raise UnavailableError("The connection to the display was lost; try again.") from None
    except RfbError as error:
        raise CliError(str(error)) from error


def write_picture(picture: Picture, path: str) -> None:
    """Write the picture to a file, or with - to stdout; CliError when it cannot be written."""
    try:
        with click.open_file(path, "wb") as file:
            file.write(encode_png(picture))
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}.") from error


def encode_png(picture: Picture) -> bytes:
    """Return the picture as a file: eight bits of red, green and blue, rows unfiltered."""
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    rows = bytearray()
    for row in range(picture.height):
        pixels = picture.pixels[4 * row * picture.width : 4 * (row + 1) * picture.width]
        line = bytearray(3 * picture.width)
        for colour in range(3):
            line[colour::3] = pixels[colour::4]
        rows += b"\x00" + line
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
