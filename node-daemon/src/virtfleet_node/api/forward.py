"""TCP connections to guests over WebSockets: bytes both ways in binary frames, refusals before the upgrade.

An empty frame says that its side has nothing more to send; the other direction goes on. Each side is read only when
the other has taken what was read before.
"""

import asyncio
import re
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.ports import Forwarder
from virtfleet_node.core.errors import InvalidError

FRAME_BYTES: Final = 65536

CLOSE_BYTES: Final = 123
"""What a close frame has room for (RFC 6455, 5.5)."""

_PING_SECONDS: Final = 20.0
_CLOSE_SECONDS: Final = 2.0

_MOST: Final = 65535
_PORT: Final = re.compile("[0-9]{1,5}", re.ASCII)


class Forwards:
    """The connections that are open."""

    def __init__(self, forwarder: Forwarder, metrics: ApiMetrics) -> None:
        self._forwarder = forwarder
        self._metrics = metrics
        self._tasks: set[asyncio.Task[object]] = set()

    async def serve(self, request: web.Request, uid: str) -> web.StreamResponse:
        """Carry one connection until both sides are done; NodeErrors are raised before the upgrade."""
        port = parse_port(request.query.get("port"))
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a handler is a task
        self._tasks.add(task)
        try:
            async with self._forwarder.open_forward(uid, port) as (reader, writer):
                user = _socket()
                await user.prepare(request)
                with self._metrics.forwarding():
                    await _converse(user, reader, writer)
        finally:
            self._tasks.discard(task)
        return user

    def end(self) -> None:
        """End all connections: the daemon stops."""
        for task in self._tasks:
            task.cancel()


def parse_port(text: str | None) -> int:
    """Parse ?port=<number>; InvalidError."""
    if text is None or not _PORT.fullmatch(text) or not 0 < int(text) <= _MOST:
        raise InvalidError(f"port must be a TCP port from 1 to {_MOST}.")
    return int(text)


def _socket() -> web.WebSocketResponse:
    return web.WebSocketResponse(
        max_msg_size=FRAME_BYTES + 1, heartbeat=_PING_SECONDS, timeout=_CLOSE_SECONDS, compress=False
    )


async def _converse(user: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until both have said that they have no more, or one has gone."""
    said_all = asyncio.Event()
    tasks = [
        asyncio.create_task(_from_guest(reader, user, said_all)),
        asyncio.create_task(_from_user(user, writer, said_all)),
    ]
    code, reason = WSCloseCode.OK, "Both sides are done."
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except OSError as error:
        code, reason = WSCloseCode.INTERNAL_ERROR, f"The guest broke the connection off: {error.strerror or error}."
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await user.close(code=code, message=reason.encode()[:CLOSE_BYTES])


async def _from_guest(reader: asyncio.StreamReader, user: web.WebSocketResponse, said_all: asyncio.Event) -> None:
    """Carry what the guest sends, and wait until the user, too, has sent everything."""
    while True:
        data = await reader.read(FRAME_BYTES)
        try:
            await user.send_bytes(data)
        except ConnectionError:
            return  # the user has gone
        if not data:
            break
    await said_all.wait()


async def _from_user(user: web.WebSocketResponse, writer: asyncio.StreamWriter, said_all: asyncio.Event) -> None:
    """Carry what the user sends until it leaves, or sends what is not carried."""
    async for message in user:
        if message.type is not WSMsgType.BINARY or said_all.is_set():
            return
        if message.data:
            writer.write(message.data)
            await writer.drain()
        else:
            writer.write_eof()
            said_all.set()
