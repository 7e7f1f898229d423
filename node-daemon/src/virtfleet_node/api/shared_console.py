"""One serial console, several viewers. libvirt gives a guest's console to one reader; it is shared here.

A viewer that reads too slowly loses output: the guest is never held up, and memory is bounded. It knows no WebSocket.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from virtfleet_node.core.errors import ConflictError, UnavailableError
from virtfleet_node.core.ports import ConsoleStream

FRAME_BYTES: Final = 16384
"""Most that is handed to a viewer at once; operators accept frames up to 64 KiB."""

HELD_BYTES: Final = 262144
"""How far a viewer may lag: a quarter of a megabyte is 20 s of a serial line at 115,200 baud."""

MOST_VIEWERS: Final = 16
"""Viewers of one console."""

OPEN_SECONDS: Final = 10.0
"""How long libvirt may take to open a console."""

WRITE_SECONDS: Final = 5.0
"""How long a guest may leave its input unread before what is typed is dropped; it then has 64 KiB waiting."""

ENDED: Final = "The guest has stopped."
STOPPING: Final = "The node's daemon is stopping."


class Viewer:
    """What one viewer has yet to be shown."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._wake = asyncio.Event()
        self.end_reason: str | None = None

    def offer(self, data: bytes) -> None:
        """Hold output for the viewer; the oldest is dropped when it lags too far."""
        self._held += data
        del self._held[:-HELD_BYTES]
        self._wake.set()

    def end(self, reason: str) -> None:
        """Let the viewer go when it has been shown what is held."""
        self.end_reason = self.end_reason or reason
        self._wake.set()

    async def take(self) -> bytes:
        """Return what to show next; empty at the end."""
        while not self._held and self.end_reason is None:
            self._wake.clear()
            await self._wake.wait()
        data = bytes(self._held[:FRAME_BYTES])
        del self._held[:FRAME_BYTES]
        return data


class SharedConsole:
    """The console of one guest, open while somebody views it."""

    def __init__(self, open_stream: Callable[[], Awaitable[ConsoleStream]]) -> None:
        self._open_stream = open_stream
        self._viewers: set[Viewer] = set()
        # Held while the stream is opened or closed: libvirt refuses the next before the former is gone.
        self._changing = asyncio.Lock()
        self._typing = asyncio.Lock()
        self._stream: ConsoleStream | None = None
        self._pump: asyncio.Task[None] | None = None

    async def join(self) -> Viewer:
        """Add a viewer; a NodeError says why the console cannot be had."""
        async with self._changing:
            if self._pump is not None and self._pump.done():
                await self._close()  # the former guest's; this viewer is for the next
            if self._stream is None:
                await self._open()
            if len(self._viewers) >= MOST_VIEWERS:
                raise ConflictError(f"The console has {MOST_VIEWERS} viewers already: close one of them.")
            viewer = Viewer()
            self._viewers.add(viewer)
            return viewer

    async def leave(self, viewer: Viewer) -> None:
        """Remove a viewer, and let the console go after the last one."""
        self._viewers.discard(viewer)
        async with self._changing:
            if not self._viewers:
                await self._close()

    async def write(self, data: bytes) -> None:
        """Type into the console, one viewer after the other; dropped if the guest does not read."""
        async with self._typing:
            if self._stream is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WRITE_SECONDS):
                        await self._stream.write(data)

    def end(self, reason: str) -> None:
        """Let every viewer go."""
        for viewer in self._viewers:
            viewer.end(reason)

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._stream = await self._open_stream()
        except TimeoutError:
            raise UnavailableError(f"The console did not open within {OPEN_SECONDS:.0f} s.") from None
        self._pump = asyncio.create_task(self._show(self._stream), name="console")

    async def _show(self, stream: ConsoleStream) -> None:
        """Hand what the guest writes to every viewer, until it ends."""
        reason = ENDED
        try:
            while data := await stream.read():
                for viewer in self._viewers:
                    viewer.offer(data)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the viewers are told and the console is closed
            reason = f"The console broke: {error!s:.100}"
        self.end(reason)

    async def _close(self) -> None:
        stream, pump = self._stream, self._pump
        self._stream = self._pump = None
        if pump is not None:
            pump.cancel()
            await asyncio.wait({pump})
        if stream is not None:
            with contextlib.suppress(Exception):  # it is gone either way
                async with asyncio.timeout(OPEN_SECONDS):
                    await stream.close()
