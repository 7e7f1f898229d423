"""A guest's serial console as a stream. The guest may write without end: what is not read in time is dropped."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

import libvirt

from virtfleet_node.core.errors import ConflictError

_LOG = logging.getLogger(__name__)

BUFFER_BYTES: Final = 262144
"""Kept for a slow reader: several screens. Beyond it the oldest is lost, as on a real serial line."""

_CHUNK_BYTES: Final = 16384
_WOULD_BLOCK: Final = -2
"""What virStreamRecv and virStreamSend return when there is nothing to do now."""

_ENDED: Final = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


def open_stream(connect: libvirt.virConnect, uid: str) -> libvirt.virStream:
    """Open the console of a running guest, taking it from whoever has it. Blocks."""
    stream = connect.newStream(libvirt.VIR_STREAM_NONBLOCK)
    connect.lookupByUUIDString(uid).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
    return stream


class Console:
    """An open console. All of it runs in the event loop."""

    def __init__(self, stream: libvirt.virStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._open = True
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._watching = libvirt.VIR_STREAM_EVENT_READABLE | _ENDED
        stream.eventAddCallback(self._watching, self._on_event, None)

    async def read(self) -> bytes:
        """Return what the guest wrote next; empty at the end."""
        while self._open and not self._buffer:
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def write(self, data: bytes) -> None:
        """Type into the console; waits while the guest does not take it. ConflictError once it has ended."""
        while data:
            if not self._open:
                raise ConflictError("The console has ended.")
            sent = self._send(data)
            data = data[sent:]
            if not sent:
                await self._wait_writable()

    async def close(self) -> None:
        """Let the console go."""
        self._end()

    def _send(self, data: bytes) -> int:
        try:
            sent = int(self._stream.send(data[:_CHUNK_BYTES]))
        except libvirt.libvirtError:
            self._end()
            return 0
        return max(sent, 0)

    async def _wait_writable(self) -> None:
        if self._open:
            self._writable.clear()
            self._watch(self._watching | libvirt.VIR_STREAM_EVENT_WRITABLE)
            await self._writable.wait()

    def _on_event(self, _: libvirt.virStream, events: int, _opaque: object) -> None:
        if not self._open:
            return
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            self._receive()
        if events & libvirt.VIR_STREAM_EVENT_WRITABLE and self._open:
            self._watch(self._watching)
            self._writable.set()
        if events & _ENDED:
            self._end()

    def _receive(self) -> None:
        try:
            data = self._stream.recv(_CHUNK_BYTES)
        except libvirt.libvirtError:
            self._end()
            return
        if data == _WOULD_BLOCK:
            return
        if not data:
            self._end()
            return
        self._buffer += data
        del self._buffer[:-BUFFER_BYTES]
        self._readable.set()

    def _watch(self, events: int) -> None:
        with suppress(libvirt.libvirtError):
            self._stream.eventUpdateCallback(events)

    def _end(self) -> None:
        if self._open:
            self._open = False
            with suppress(libvirt.libvirtError):
                self._stream.eventRemoveCallback()
            with suppress(libvirt.libvirtError):
                self._stream.abort()
        self._readable.set()
        self._writable.set()
