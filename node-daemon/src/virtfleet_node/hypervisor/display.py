"""A guest's display as a connection to QEMU's VNC server. libvirt hands it over; nothing listens for it."""

import asyncio
import socket
from typing import Final

import libvirt

from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.errors import ConflictError

_CHUNK_BYTES: Final = 65536


def open_display(connect: libvirt.virConnect, uid: str) -> int:
    """Return a file descriptor that speaks VNC (RFC 6143) with a running guest, for its caller to close. Blocks.

    Raises:
        ConflictError: the guest was started without a display.
    """
    domain = connect.lookupByUUIDString(uid)
    kinds = [graphics.get("type") for graphics in parse(domain.XMLDesc(0)).findall("devices/graphics")]
    if "vnc" not in kinds:
        raise ConflictError(
            "The guest was started without a display: add `display: {}` to the spec, and `kubectl vm restart` it."
        )
    return int(domain.openGraphicsFD(kinds.index("vnc"), libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH))


class Display:
    """An open display. Neither side is read faster than the other takes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, descriptor: int) -> "Display":
        """Take over a file descriptor of `open_display`."""
        with socket.socket(fileno=descriptor) as connection:
            return cls(*await asyncio.open_connection(sock=connection.dup()))

    async def read(self) -> bytes:
        """Return what QEMU shows next; empty at the end."""
        try:
            return await self._reader.read(_CHUNK_BYTES)
        except ConnectionError:
            return b""  # QEMU was killed

    async def write(self, data: bytes) -> None:
        """Send what the viewer types, points at or asks for. ConflictError once the guest has ended."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            raise ConflictError("The display has ended.") from None

    async def close(self) -> None:
        """Let the display go."""
        self._writer.transport.abort()
