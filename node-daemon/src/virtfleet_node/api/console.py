"""Consoles over WebSockets. libvirt gives a guest's console to one reader; several viewers share it here.

A viewer that reads too slowly loses output; the guest is never held up, and memory is bounded.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from virtfleet_api.node_api import CONSOLE_HISTORY_BYTES
from virtfleet_node.api.ports import Daemon
from virtfleet_node.core.errors import InvalidError
from virtfleet_node.core.ports import ConsoleStream

_FRAME_BYTES: Final = 65536
"""Largest frame in either direction; a person types less."""

_QUEUED_CHUNKS: Final = 256
"""Chunks a viewer may lag behind: at 4 KiB each, a megabyte."""

_PING_SECONDS: Final = 20.0
"""A viewer that answers no ping is dropped within twice this time."""

_END = b""


@dataclass(eq=False)
class _Shared:
    """The console of one guest and those who watch it."""

    stream: ConsoleStream
    viewers: "set[asyncio.Queue[bytes]]" = field(default_factory=set)
    pump: "asyncio.Task[None] | None" = None


class Consoles:
    """The consoles that are being watched."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._open: dict[str, _Shared] = {}
        self._opening = asyncio.Lock()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve a viewer until it leaves or the guest ends; refusals are raised before the upgrade."""
        uid = request.match_info["uid"]
        wanted = _parse_history(request.query.get("history"))
        if request.query.get("follow") == "false":
            return await self._serve_history(request, uid, wanted)
        queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUED_CHUNKS)
        shared = await self._join(uid, queue)
        try:
            socket = web.WebSocketResponse(max_msg_size=_FRAME_BYTES, heartbeat=_PING_SECONDS)
            await socket.prepare(request)
            await self._send_history(socket, uid, wanted)
            await _converse(socket, shared.stream, queue)
        finally:
            await self._leave(uid, shared, queue)
        return socket

    async def _serve_history(self, request: web.Request, uid: str, wanted: int) -> web.StreamResponse:
        history = await self._daemon.read_console_log(uid, wanted)
        socket = web.WebSocketResponse(max_msg_size=_FRAME_BYTES)
        await socket.prepare(request)
        await socket.send_bytes(history)
        await socket.close(code=WSCloseCode.OK, message=b"End of the history.")
        return socket

    async def _send_history(self, socket: web.WebSocketResponse, uid: str, wanted: int) -> None:
        if wanted:
            await socket.send_bytes(await self._daemon.read_console_log(uid, wanted))

    async def _join(self, uid: str, queue: "asyncio.Queue[bytes]") -> _Shared:
        async with self._opening:
            shared = self._open.get(uid)
            if shared is None:
                shared = _Shared(await self._daemon.open_console(uid))
                shared.pump = asyncio.create_task(self._pump(uid, shared))
                self._open[uid] = shared
            shared.viewers.add(queue)
            return shared

    async def _leave(self, uid: str, shared: _Shared, queue: "asyncio.Queue[bytes]") -> None:
        shared.viewers.discard(queue)
        if not shared.viewers and shared.pump is not None:
            self._forget(uid, shared)
            shared.pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shared.pump
            await shared.stream.close()

    async def _pump(self, uid: str, shared: _Shared) -> None:
        """Hand what the guest writes to every viewer, until it ends."""
        try:
            while data := await shared.stream.read():
                for queue in shared.viewers:
                    _offer(queue, data)
        finally:
            self._forget(uid, shared)
            for queue in shared.viewers:
                _offer(queue, _END)

    def _forget(self, uid: str, shared: _Shared) -> None:
        if self._open.get(uid) is shared:
            del self._open[uid]


async def _converse(socket: web.WebSocketResponse, stream: ConsoleStream, queue: "asyncio.Queue[bytes]") -> None:
    """Carry bytes both ways until either side ends."""
    show = asyncio.create_task(_show(socket, queue))
    typing = asyncio.create_task(_type(socket, stream))
    await asyncio.wait((show, typing), return_when=asyncio.FIRST_COMPLETED)
    for task in (show, typing):
        task.cancel()
    await asyncio.gather(show, typing, return_exceptions=True)
    await socket.close(code=WSCloseCode.OK, message=b"The console has ended.")


async def _show(socket: web.WebSocketResponse, queue: "asyncio.Queue[bytes]") -> None:
    while data := await queue.get():
        await socket.send_bytes(data)


async def _type(socket: web.WebSocketResponse, stream: ConsoleStream) -> None:
    async for message in socket:
        if message.type != WSMsgType.BINARY:
            return
        await stream.write(message.data)


def _offer(queue: "asyncio.Queue[bytes]", data: bytes) -> None:
    """Queue data for a viewer; the oldest is dropped when it lags."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(data)


def _parse_history(text: str | None) -> int:
    """Parse ?history=<bytes>; InvalidError beyond CONSOLE_HISTORY_BYTES."""
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 8) or int(text) > CONSOLE_HISTORY_BYTES:  # noqa: PLR2004 -- digits
        raise InvalidError(f"history must be a number of bytes up to {CONSOLE_HISTORY_BYTES}.")
    return int(text)
