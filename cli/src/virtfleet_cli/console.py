"""A console session: the user's terminal and the guest's serial port, through the API server.

It connects again when the operator or the API server goes away, since the guest does not, and then shows what the guest
wrote meanwhile, as its node keeps it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from virtfleet_api.node_api import CONSOLE_HISTORY_BYTES
from virtfleet_cli.cluster import Cluster
from virtfleet_cli.errors import CliError, UnavailableError
from virtfleet_cli.leaving import told_to_end
from virtfleet_cli.replay import count_overlap, find_missed, keep_shown
from virtfleet_cli.terminal import ESCAPE, Terminal

RECONNECT_SECONDS: Final = 60.0
"""How long to try again: a new leader is elected and serves within half a minute."""

RETRY_SECONDS: Final = 1.0

HISTORY_SECONDS: Final = 5.0
"""How long the history may take; without it the session goes on."""

SETTLE_SECONDS: Final = 0.2
"""When nothing comes for so long, what is in a history that was read before has come by the connection as well."""

MOST_SETTLE_SECONDS: Final = 1.0
"""A guest that never pauses is not waited for longer."""

_HISTORY: Final = {"history": str(CONSOLE_HISTORY_BYTES), "follow": "false"}

_COME_AGAIN: Final = frozenset(
    {WSCloseCode.SERVICE_RESTART, WSCloseCode.TRY_AGAIN_LATER, WSCloseCode.ABNORMAL_CLOSURE, None}
)


@dataclass(frozen=True)
class End:
    """Why a session is over."""

    sentence: str = ""
    failed: bool = False
    connect_again: bool = False


def judge(close_code: int | None, reason: str) -> End:
    """Return what the end of a connection means."""
    if close_code in _COME_AGAIN:
        return End(reason, connect_again=True)
    return End(reason, failed=close_code != WSCloseCode.OK)


async def print_history(cluster: Cluster, name: str, terminal: Terminal) -> None:
    """Write the last output of the guest, as far as its node keeps it, and leave."""
    async with cluster.open_console(name, _HISTORY) as console:
        await _show(console, terminal.write)


async def run_console(cluster: Cluster, name: str, terminal: Terminal, timeout_seconds: float | None) -> None:
    """Connect user and guest until the user leaves, the guest ends or the time is up; CliError if it fails."""
    sentence = ""
    with terminal.raw():
        try:
            async with asyncio.timeout(timeout_seconds):
                end = await _Console(cluster, name, terminal).run()
        except TimeoutError:
            end = End()
        except CliError as error:
            end, sentence = End(failed=True), str(error)
    if end.failed:
        raise CliError(sentence or end.sentence)
    if end.sentence:
        terminal.say(end.sentence)


class _Console:
    """One console, over as many connections as it takes."""

    def __init__(self, cluster: Cluster, name: str, terminal: Terminal) -> None:
        self._cluster = cluster
        self._name = name
        self._terminal = terminal
        self._left = asyncio.Event()
        self._input: asyncio.Queue[bytes] | None = None
        self._shown = b""
        """The end of what the guest wrote until now."""

    async def run(self) -> End:
        with told_to_end(self._left):
            end = await self._connect()
            while end.connect_again:
                self._terminal.say(f"{end.sentence or 'The connection was lost.'} Connecting again; Ctrl-] leaves.")
                end = await self._connect_again()
            return end

    async def _connect_again(self) -> End:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RECONNECT_SECONDS
        while True:
            try:
                return await self._connect()
            except CliError as error:
                if loop.time() > deadline or not isinstance(error, UnavailableError):
                    raise
            if await self._leaves_within(RETRY_SECONDS):
                return End()

    async def _connect(self) -> End:
        if self._input is None:
            self._shown = keep_shown(b"", await self._read_history() or b"")
        async with self._cluster.open_console(self._name, {}) as console:
            first = self._input is None
            if self._input is None:
                self._input = self._terminal.start_reading()
                if self._terminal.interactive:
                    self._terminal.say(f"Connected to {self._name}; press Enter for a prompt, Ctrl-] to leave.")
            return await self._converse(console, self._input, first=first)

    async def _read_history(self) -> bytes | None:
        """Return the last output of the guest; None when it cannot be had now."""
        received = bytearray()

        async def keep(data: bytes) -> None:
            received.extend(data)

        try:
            async with asyncio.timeout(HISTORY_SECONDS), self._cluster.open_console(self._name, _HISTORY) as console:
                end = await _show(console, keep)
        except (UnavailableError, TimeoutError):
            return None
        return None if end.failed or end.connect_again else bytes(received)

    async def _catch_up(self, console: aiohttp.ClientWebSocketResponse) -> str:
        """Show what the guest wrote since the former connection; return why this one has ended, if it has."""
        history = await self._read_history()
        now, reason = await _receive_now(console)
        if history is None:
            self._terminal.say("Connected again; what the guest wrote meanwhile cannot be read.")
            await self._write(now)
            return reason
        missed = find_missed(history, self._shown)
        lost = " Some output is lost; the last that is kept follows." if missed is None else ""
        self._terminal.say(f"Connected again.{lost}")
        await self._write((history if missed is None else missed) + now[count_overlap(history, now) :])
        return reason

    async def _show(self, console: aiohttp.ClientWebSocketResponse, *, first: bool) -> End:
        reason = "" if first else await self._catch_up(console)
        return await _show(console, self._write, reason)

    async def _write(self, data: bytes) -> None:
        self._shown = keep_shown(self._shown, data)
        await self._terminal.write(data)

    async def _converse(
        self, console: aiohttp.ClientWebSocketResponse, keys: "asyncio.Queue[bytes]", *, first: bool
    ) -> End:
        show = asyncio.create_task(self._show(console, first=first))
        others = [asyncio.create_task(self._type(console, keys)), asyncio.create_task(self._left.wait())]
        try:
            await asyncio.wait([show, *others], return_when=asyncio.FIRST_COMPLETED)
            return show.result() if show.done() and not self._left.is_set() else End()
        finally:
            for task in (show, *others):
                task.cancel()
            await asyncio.gather(show, *others, return_exceptions=True)

    async def _type(self, console: aiohttp.ClientWebSocketResponse, keys: "asyncio.Queue[bytes]") -> None:
        """Send input until the user leaves; the end of a file or pipe is not the end of the session."""
        while True:
            data = await keys.get()
            if self._terminal.interactive and (ESCAPE in data or not data):
                await self._send(console, data.split(ESCAPE, 1)[0])
                self._left.set()
                return
            if not data:
                await self._left.wait()
            await self._send(console, data)

    async def _send(self, console: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
        try:
            if data:
                await console.send_bytes(data)
        except ConnectionError:
            await self._left.wait()  # the reading side sees the end of the connection, and says why

    async def _leaves_within(self, seconds: float) -> bool:
        """Wait, but not when the user leaves meanwhile; what is typed without a connection is lost."""
        assert self._input is not None  # noqa: S101 -- set by the first connection
        try:
            async with asyncio.timeout(seconds):
                while not self._left.is_set():
                    data = await self._input.get()
                    if self._terminal.interactive and (ESCAPE in data or not data):
                        self._left.set()
        except TimeoutError:
            return False
        return True


async def _show(
    console: aiohttp.ClientWebSocketResponse, write: Callable[[bytes], Awaitable[None]], reason: str = ""
) -> End:
    """Write what the guest says until the connection ends, and say why it did; `reason` is what is known of that."""
    while True:
        message = await console.receive()
        if message.type in {WSMsgType.BINARY, WSMsgType.TEXT}:
            await write(message.data if message.type is WSMsgType.BINARY else message.data.encode())
            continue
        if message.type is WSMsgType.CLOSE:
            reason = str(message.extra or "")
        break
    return judge(console.close_code, reason)


async def _receive_now(console: aiohttp.ClientWebSocketResponse) -> tuple[bytes, str]:
    """Return what has come until the guest pauses, or for a second of one that never does.

    With it comes the reason if the connection has ended.
    """
    loop, received = asyncio.get_running_loop(), b""
    end = loop.time() + MOST_SETTLE_SECONDS
    while (left := end - loop.time()) > 0:
        try:
            message = await console.receive(timeout=min(SETTLE_SECONDS, left))
        except TimeoutError:
            break
        if message.type is not WSMsgType.BINARY:
            return received, str(message.extra or "") if message.type is WSMsgType.CLOSE else ""
        received += message.data
    return received, ""
