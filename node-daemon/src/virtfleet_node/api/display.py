"""Displays over WebSockets: VNC in binary frames both ways. Each viewer has a connection to QEMU of its own.

Nothing is kept here: each side is read only when the other has taken what was read before.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from virtfleet_node.api.console import new_socket
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.ports import Daemon
from virtfleet_node.api.shared_console import ENDED, STOPPING
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.ports import DisplayStream

MOST_VIEWERS: Final = 8
"""Viewers of one display: QEMU holds several MB for each."""


class Displays:
    """The displays that are being viewed."""

    def __init__(self, daemon: Daemon, metrics: ApiMetrics) -> None:
        self._daemon = daemon
        self._metrics = metrics
        self._viewers: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    async def serve(self, request: web.Request, uid: str) -> web.StreamResponse:
        """Serve a viewer until it leaves or the guest ends; NodeErrors are raised before the upgrade."""
        with self._counted(uid), self._metrics.viewing_display():
            display = await self._daemon.open_display(uid)
            try:
                viewer = new_socket()
                await viewer.prepare(request)
                await self._converse(viewer, display)
            finally:
                await display.close()
        return viewer

    def end(self) -> None:
        """Let all viewers go: the daemon stops."""
        self._stopping.set()

    @contextmanager
    def _counted(self, uid: str) -> Iterator[None]:
        if self._viewers[uid] >= MOST_VIEWERS:
            raise ConflictError(f"The display has {MOST_VIEWERS} viewers already: close one of them.")
        self._viewers[uid] += 1
        try:
            yield
        finally:
            self._viewers[uid] -= 1
            if not self._viewers[uid]:
                del self._viewers[uid]

    async def _converse(self, viewer: web.WebSocketResponse, display: DisplayStream) -> None:
        show = asyncio.create_task(_show(display, viewer))
        take = asyncio.create_task(_take(viewer, display))
        stop = asyncio.create_task(self._stopping.wait())
        tasks = (show, take, stop)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                code, reason = WSCloseCode.GOING_AWAY, STOPPING
            elif take.done() and not take.exception() and not show.done():
                code, reason = WSCloseCode.UNSUPPORTED_DATA, "Only binary frames are carried."  # or it has left
            else:
                code, reason = WSCloseCode.OK, ENDED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await viewer.close(code=code, message=reason.encode())


async def _show(display: DisplayStream, viewer: web.WebSocketResponse) -> None:
    with suppress(ConnectionError):  # the viewer has gone, which its other side tells as well
        while data := await display.read():
            await viewer.send_bytes(data)


async def _take(viewer: web.WebSocketResponse, display: DisplayStream) -> None:
    """Pass on what the viewer sends until it leaves or sends no binary frame; NodeError once the guest has ended."""
    async for message in viewer:
        if message.type is not WSMsgType.BINARY:
            return
        await display.write(message.data)
