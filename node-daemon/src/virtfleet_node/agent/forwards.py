"""Connections from the node to TCP ports of its own guests, by way of their switches.

A port on the switch is made when it is first used and removed some time after it was last used. Nothing is remembered
of that: what a daemon that was killed has left is found by its mark, and removed.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from virtfleet_api.machine import ForwardPath
from virtfleet_api.report import Phase
from virtfleet_node.agent.entry import Entry
from virtfleet_node.core.errors import ConflictError, NotFoundError, UnavailableError
from virtfleet_node.core.forward import device_name, find_path
from virtfleet_node.host.local_ports import LocalPorts
from virtfleet_node.host.programs import ProgramError

_LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 10.0
"""A look starts two programs."""

UNUSED_SECONDS: Final = 60.0
"""How long a port stays for the next connection: making one takes half a second."""

CONNECT_SECONDS: Final = 10.0
"""How long a guest may take to answer; ovn-controller has a new port in its flow tables after a part of that."""

_RETRY_SECONDS: Final = 0.2

MOST_CONNECTIONS: Final = 512
"""Of one node; each has some 300 KiB of buffers when both sides are slow."""

_CLOSE_SECONDS: Final = 2.0

_KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""A guest that was switched off says nothing more: its connections end after a minute."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class _Used:
    """A port that is there."""

    path: ForwardPath
    connections: int = 0
    unused_since: float = 0.0

    def fits(self, path: ForwardPath) -> bool:
        """Tell whether a guest can be reached from it."""
        return (self.path.mac, self.path.source) == (path.mac, path.source)


class Forwards:
    """The node's ports on the switches of its guests, and the connections from them."""

    def __init__(self, ports: LocalPorts, entries: Mapping[str, Entry]) -> None:
        self._ports = ports
        self._entries = entries
        self._used: dict[str, _Used] = {}
        self._connections = 0
        self._lock = asyncio.Lock()
        """Held while ports are made and removed."""

    async def run(self) -> None:
        """Remove what is not used, again and again; when cancelled, everything."""
        try:
            while True:
                await self.sweep()
                await asyncio.sleep(EVERY_SECONDS)
        finally:
            self._used.clear()
            await self.sweep()

    async def sweep(self) -> None:
        """Remove the ports that nobody uses now; what cannot be removed is tried again."""
        async with self._lock:
            try:
                found = await self._ports.read()
                for name in sorted(found):
                    if not self._is_needed(name):
                        self._used.pop(name, None)
                        await self._ports.remove(name)
            except ProgramError as error:
                _LOG.warning("Removing the node's ports on switches fails", extra={"reason": str(error)})
                return
            for name in self._used.keys() - found:
                self._used.pop(name)  # somebody has removed it: the next connection has it made anew

    @asynccontextmanager
    async def open_forward(self, uid: str, port: int) -> AsyncIterator[Connection]:
        """Connect to a TCP port of a running guest for as long as the context lasts.

        Raises:
            NotFoundError: this node has no such machine.
            ConflictError: it does not run, has no card by which it can be reached, or does not answer.
            UnavailableError: there are too many connections, or Open vSwitch does not do its part.
        """
        path = self._find(uid)
        if self._connections >= MOST_CONNECTIONS:
            raise UnavailableError(f"There are {MOST_CONNECTIONS} connections to guests of this node already.")
        self._connections += 1
        try:
            async with self._using(path) as name:
                reader, writer = await self._connect(name, path, port)
                try:
                    yield reader, writer
                finally:
                    await _close(writer)
        finally:
            self._connections -= 1

    def _find(self, uid: str) -> ForwardPath:
        entry = self._entries.get(uid)
        if entry is None:
            raise NotFoundError(f"This node has no machine {uid}.")
        if (phase := entry.reported.phase) not in {Phase.RUNNING, Phase.STOPPING}:
            raise ConflictError(f"The machine is {phase}; only a running guest can be reached.")
        path = find_path(entry.desired.hardware)
        if path is None:
            raise ConflictError(
                "None of its cards can be reached: that takes a card on a VirtualSwitch with a subnet, which has an "
                "address left for the nodes."
            )
        return path

    @asynccontextmanager
    async def _using(self, path: ForwardPath) -> AsyncIterator[str]:
        """Have the port that a path begins at, for as long as the context lasts."""
        name = device_name(path.port)
        async with self._lock:
            used = await self._ready(name, path)
            used.connections += 1
        try:
            yield name
        finally:
            used.connections -= 1
            used.unused_since = asyncio.get_running_loop().time()

    async def _ready(self, name: str, path: ForwardPath) -> _Used:
        used = self._used.get(name)
        if used is not None and not used.fits(path) and used.connections:
            raise UnavailableError("The switch's own addresses were changed, and the former ones are still used.")
        try:
            if used is None or not used.fits(path):
                self._used.pop(name, None)
                await self._ports.make(name, path)
                used = self._used[name] = _Used(path)
            await self._ports.reach(name, path)
        except ProgramError as error:
            raise UnavailableError(f"This node cannot be plugged into the machine's switch: {error}.") from error
        return used

    async def _connect(self, name: str, path: ForwardPath, port: int) -> Connection:
        where = f"{path.target} port {port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._dial(name, path, port)
        except TimeoutError:
            self._doubt(name)
            raise ConflictError(f"The guest does not answer at {where} within {CONNECT_SECONDS:.0f} s.") from None
        except ConnectionRefusedError:
            raise ConflictError(f"The guest refuses connections to {where}: nothing listens there.") from None
        except OSError as error:
            self._doubt(name)
            raise ConflictError(f"The guest cannot be reached at {where}: {error.strerror or error}.") from error

    async def _dial(self, name: str, path: ForwardPath, port: int) -> Connection:
        """Connect; as long as the guest's address is not found, again and again."""
        loop, family = asyncio.get_running_loop(), socket.AF_INET if path.target.version == 4 else socket.AF_INET6  # noqa: PLR2004
        while True:
            made = await asyncio.to_thread(self._ports.open_socket, name, family)
            try:
                made.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE.items():
                    made.setsockopt(socket.IPPROTO_TCP, option, value)
                await loop.sock_connect(made, (str(path.target), port))
                return await asyncio.open_connection(sock=made)
            except ConnectionRefusedError:
                made.close()
                raise
            except OSError:
                made.close()
                await asyncio.sleep(_RETRY_SECONDS)
            except BaseException:
                made.close()
                raise

    def _doubt(self, name: str) -> None:
        """Have a port made anew by the next connection, when this one alone uses it: Open vSwitch may have lost it."""
        used = self._used.get(name)
        if used is not None and used.connections == 1:
            del self._used[name]

    def _is_needed(self, name: str) -> bool:
        used = self._used.get(name)
        if used is None:
            return False
        return bool(used.connections) or asyncio.get_running_loop().time() < used.unused_since + UNUSED_SECONDS


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await writer.wait_closed()
    writer.transport.abort()
