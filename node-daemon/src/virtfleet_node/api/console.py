"""Consoles over WebSockets: binary frames both ways, refusals before the upgrade."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from virtfleet_api.node_api import CONSOLE_HISTORY_BYTES
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.ports import Daemon
from virtfleet_node.api.shared_console import ENDED, FRAME_BYTES, STOPPING, SharedConsole, Viewer
from virtfleet_node.core.errors import InvalidError, UnavailableError

_INPUT_BYTES: Final = 65536 + 1
"""Largest frame that is read: 64 KiB, which the library counts as one less than this."""

_PING_SECONDS: Final = 20.0
"""A viewer that answers no ping is dropped within one and a half of this time."""

_CLOSE_SECONDS: Final = 2.0
"""How long a viewer may take to say goodbye."""

_LOG_SECONDS: Final = 10.0
"""How long reading the end of a log may take."""

_CLOSE_CODES: Final = {ENDED: WSCloseCode.OK, STOPPING: WSCloseCode.GOING_AWAY}

_DIGITS: Final = 8
"""More digits than any history has."""


@dataclass
class _Used:
    """A console and how many requests use it, those that still wait for it included."""

    console: SharedConsole
    requests: int = 0


class Consoles:
    """The consoles that are being viewed."""

    def __init__(self, daemon: Daemon, metrics: ApiMetrics) -> None:
        self._daemon = daemon
        self._metrics = metrics
        self._used: dict[str, _Used] = {}

    async def serve(self, request: web.Request, uid: str) -> web.StreamResponse:
        """Serve a viewer until it leaves or the guest ends; NodeErrors are raised before the upgrade."""
        wanted = parse_history(request.query.get("history"))
        follow = parse_follow(request.query.get("follow"))
        if not follow:
            return await self._serve_history(request, await self._read_log(uid, wanted))
        async with self._viewing(uid) as (console, viewer):
            history = await self._read_log(uid, wanted)
            socket = new_socket()
            await socket.prepare(request)
            await _send(socket, history)
            await _converse(socket, console, viewer)
        return socket

    def end(self) -> None:
        """Let all viewers go: the daemon stops."""
        for used in self._used.values():
            used.console.end(STOPPING)

    async def _serve_history(self, request: web.Request, history: bytes) -> web.StreamResponse:
        socket = new_socket()
        await socket.prepare(request)
        await _send(socket, history)
        await socket.close(code=WSCloseCode.OK, message=b"End of the history.")
        return socket

    async def _read_log(self, uid: str, wanted: int) -> bytes:
        if not wanted:
            return b""
        try:
            async with asyncio.timeout(_LOG_SECONDS):
                return (await self._daemon.read_console_log(uid, wanted))[-wanted:]
        except TimeoutError:
            raise UnavailableError(f"The console's log could not be read within {_LOG_SECONDS:.0f} s.") from None

    @asynccontextmanager
    async def _viewing(self, uid: str) -> AsyncIterator[tuple[SharedConsole, Viewer]]:
        used = self._used.setdefault(uid, _Used(SharedConsole(lambda: self._daemon.open_console(uid))))
        used.requests += 1
        try:
            viewer = await used.console.join()
            try:
                with self._metrics.viewing():
                    yield used.console, viewer
            finally:
                await used.console.leave(viewer)
        finally:
            used.requests -= 1
            if not used.requests:
                self._used.pop(uid, None)


def parse_history(text: str | None) -> int:
    """Parse ?history=<bytes>; InvalidError beyond CONSOLE_HISTORY_BYTES."""
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < _DIGITS) or int(text) > CONSOLE_HISTORY_BYTES:
        raise InvalidError(f"history must be a number of bytes up to {CONSOLE_HISTORY_BYTES}.")
    return int(text)


def parse_follow(text: str | None) -> bool:
    """Parse ?follow=true|false; InvalidError."""
    if text not in {None, "true", "false"}:
        raise InvalidError("follow must be true or false.")
    return text != "false"


def new_socket() -> web.WebSocketResponse:
    """Return an answer that becomes a WebSocket, with bounds for what its peer may do."""
    # Without compression: the peer could make the daemon inflate what it never sent.
    return web.WebSocketResponse(
        max_msg_size=_INPUT_BYTES, heartbeat=_PING_SECONDS, timeout=_CLOSE_SECONDS, compress=False
    )


async def _send(socket: web.WebSocketResponse, data: bytes) -> None:
    for start in range(0, len(data), FRAME_BYTES):
        await socket.send_bytes(data[start : start + FRAME_BYTES])


async def _converse(socket: web.WebSocketResponse, console: SharedConsole, viewer: Viewer) -> None:
    """Carry bytes both ways until either side ends."""
    show = asyncio.create_task(_show(socket, viewer))
    typing = asyncio.create_task(_type(socket, console))
    try:
        await asyncio.wait((show, typing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (show, typing):
            task.cancel()
        await asyncio.gather(show, typing, return_exceptions=True)
    if viewer.end_reason is None:  # the viewer has left; if not, it sent what it should not
        await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"Only binary frames are carried.")
    else:
        code = _CLOSE_CODES.get(viewer.end_reason, WSCloseCode.INTERNAL_ERROR)
        await socket.close(code=code, message=viewer.end_reason.encode())


async def _show(socket: web.WebSocketResponse, viewer: Viewer) -> None:
    while data := await viewer.take():
        await socket.send_bytes(data)


async def _type(socket: web.WebSocketResponse, console: SharedConsole) -> None:
    """Type what the viewer sends until it leaves, or sends something else than binary frames."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY:
            return
        await console.write(message.data)
