"""TCP ports of a guest at ports of this computer, through the API server: what `kubectl port-forward` is for pods.

Each local connection has one of its own to the guest. One that comes while no operator serves waits for the next; one
that is open then is lost, since TCP cannot go on where it was.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import click
from aiohttp import WSCloseCode, WSMsgType

from virtfleet_cli.cluster import Cluster
from virtfleet_cli.connections import Connections
from virtfleet_cli.errors import CliError, UnavailableError
from virtfleet_cli.leaving import told_to_end
from virtfleet_cli.terminal import Terminal

WAIT_SECONDS: Final = 45.0
"""How long a local connection waits for an operator: a new leader is elected and serves within half a minute."""

FIRST_RETRY_SECONDS: Final = 0.2
LONGEST_RETRY_SECONDS: Final = 3.0

CHUNK_BYTES: Final = 65536
"""Largest frame that is sent, as the operator takes it."""

MOST_PORT: Final = 65535

_PAIR: Final = re.compile(r"(?:(?P<local>[0-9]{0,5}):)?(?P<remote>[0-9]{1,5})", re.ASCII)
_LOCALHOST: Final = ("127.0.0.1", "::1")

Read = Callable[[], Awaitable[bytes]]
"""Returns what comes next from the local side, a frame at most; nothing when that has no more."""


@dataclass(frozen=True)
class PortPair:
    """A local port, 0 for any that is free, and the guest's."""

    local: int
    remote: int


@dataclass(frozen=True)
class LocalSide:
    """What is connected with the guest: reading, writing, and saying that the guest has no more to send."""

    read: Read
    write: Callable[[bytes], Awaitable[None]]
    end: Callable[[], None]


def parse_pair(text: str) -> PortPair:
    """Parse "8080:80", "80" or ":80"; CliError for anything else."""
    found = _PAIR.fullmatch(text)
    if found:
        remote = int(found["remote"])
        local = remote if found["local"] is None else int(found["local"] or 0)
        if 0 < remote <= MOST_PORT and local <= MOST_PORT:
            return PortPair(local, remote)
    raise CliError(f"{text!r} is no port: write 80, 8080:80 for another port here, or :80 for any that is free.")


def find_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses to listen on; "localhost" is both of its addresses. CliError for none."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise CliError("--address needs an address of this computer, or several with commas in between.")
    return tuple(dict.fromkeys(a for word in words for a in (_LOCALHOST if word == "localhost" else (word,))))


async def forward_ports(cluster: Cluster, name: str, pairs: Iterable[PortPair], addresses: tuple[str, ...]) -> None:
    """Serve local ports until the user leaves.

    Raises:
        CliError: the machine may not or cannot be reached, or a port cannot be listened on.
    """
    wanted = tuple(pairs)
    await cluster.check_forward(name, wanted[0].remote)
    async with contextlib.AsyncExitStack() as stack:
        for pair in wanted:
            await stack.enter_async_context(_Listener(cluster, name, pair.remote).listening(addresses, pair.local))
        with told_to_end() as left:
            await left.wait()


async def forward_stdio(cluster: Cluster, name: str, port: int) -> None:
    """Connect standard input and output with a port of the guest until both sides have ended; CliError."""
    terminal = Terminal()
    keys = terminal.start_reading()
    local = LocalSide(keys.get, terminal.write, terminal.close_output)
    with told_to_end() as left:
        talking = asyncio.create_task(connect(cluster, name, port, local))
        leaving = asyncio.create_task(left.wait())
        await asyncio.wait((talking, leaving), return_when=asyncio.FIRST_COMPLETED)
        for task in (talking, leaving):
            if not task.done():
                task.cancel()
        await asyncio.gather(talking, leaving, return_exceptions=True)
        if not talking.cancelled():
            talking.result()


async def connect(cluster: Cluster, name: str, port: int, local: LocalSide) -> None:
    """Connect a local side with the guest; wait while an operator takes over.

    Raises:
        CliError: it cannot be connected, or the connection broke.
    """
    async with _open_patiently(cluster, name, port) as guest:
        sending = asyncio.create_task(_send(local, guest))
        receiving = asyncio.create_task(_receive(guest, local))
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()  # the local side may have broken
            await receiving
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)


@asynccontextmanager
async def _open_patiently(cluster: Cluster, name: str, port: int) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + WAIT_SECONDS, FIRST_RETRY_SECONDS
    async with contextlib.AsyncExitStack() as stack:
        while True:
            try:
                guest = await stack.enter_async_context(cluster.open_forward(name, port))
                break
            except UnavailableError:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RETRY_SECONDS)
        yield guest


async def _send(local: LocalSide, guest: aiohttp.ClientWebSocketResponse) -> None:
    """Pass on what the local side sends, and that it has no more: an empty frame."""
    data = b"."
    while data:
        data = await local.read()
        with contextlib.suppress(ConnectionError):  # the receiving side says why the connection has ended
            await guest.send_bytes(data)


async def _receive(guest: aiohttp.ClientWebSocketResponse, local: LocalSide) -> None:
    """Pass on what the guest sends until the connection ends; CliError when not both had sent everything."""
    while (message := await guest.receive()).type is WSMsgType.BINARY:
        if message.data:
            await local.write(message.data)
        else:
            local.end()
    if guest.close_code != WSCloseCode.OK:
        reason = str(message.extra or "") if message.type is WSMsgType.CLOSE else ""
        raise CliError(reason or "The connection was lost.")


class _Listener:
    """One port of the guest at a port of this computer."""

    def __init__(self, cluster: Cluster, name: str, port: int) -> None:
        self._cluster = cluster
        self._name = name
        self._port = port
        self._connections = Connections(self._serve)

    @asynccontextmanager
    async def listening(self, addresses: tuple[str, ...], port: int) -> AsyncIterator[None]:
        """Take connections for as long as the context lasts; CliError when the port is taken at every address."""
        servers, problems = [], []
        try:
            for address in addresses:
                try:
                    server = await asyncio.start_server(self._connections.begin, address, port)
                except OSError as error:
                    problems.append(f"{address}: {error.strerror or error}")
                    continue
                servers.append(server)
                port = int(server.sockets[0].getsockname()[1])
                click.echo(f"Forwarding from {_written(address)}:{port} -> {self._port}")
            if not servers:
                raise CliError(f"Port {port} cannot be listened on: {'; '.join(problems)}.")
            yield
        finally:
            for server in servers:
                server.close()
            await self._connections.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        click.echo(f"Handling connection for {writer.get_extra_info('sockname')[1]}")

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        local = LocalSide(lambda: reader.read(CHUNK_BYTES), write, writer.write_eof)
        try:
            await connect(self._cluster, self._name, self._port, local)
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass  # the local side has gone
        except CliError as error:
            click.echo(f"error: {error}", err=True)
            _reset_on_close(writer)
        finally:
            writer.transport.abort()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Have the local side see a broken connection, and not the end of what it reads."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _written(address: str) -> str:
    return f"[{address}]" if ":" in address else address
