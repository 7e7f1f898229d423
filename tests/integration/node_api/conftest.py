"""A node's real server on loopback, with a made-up daemon behind, and operators that connect to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from identities import NODE, UID, Identities
from loopback_guest import GuestPorts
from made_up_console import Consoles
from made_up_display import Displays
from simulated_node import SimulatedDaemon, build_node_report
from virtfleet_node.api.epoch import EpochGuard
from virtfleet_node.api.journal import Journal
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.server import Server
from virtfleet_node.core.errors import NotFoundError
from virtfleet_node.core.ports import ConsoleStream, DisplayStream
from virtfleet_operator.enrolment.certificates import KeyPair


@dataclass
class ConsoleDaemon(SimulatedDaemon):
    """A made-up daemon whose machines have consoles."""

    consoles: Consoles = field(default_factory=Consoles)
    displays: Displays = field(default_factory=Displays)
    log: bytes = b""
    log_failure: Exception | None = None

    async def open_console(self, uid: str) -> ConsoleStream:
        """Open the one console there is."""
        if uid != UID:
            raise NotFoundError(f"There is no machine {uid}.")
        return await self.consoles.open()

    async def open_display(self, uid: str) -> DisplayStream:
        """Open a display."""
        if uid != UID:
            raise NotFoundError(f"There is no machine {uid}.")
        return await self.displays.open()

    async def read_console_log(self, uid: str, max_bytes: int) -> bytes:  # noqa: ARG002 -- the port names it
        """Return the end of the log."""
        if self.log_failure:
            raise self.log_failure
        return self.log[-max_bytes:]


class RunningNode:
    """A node that listens, and its parts."""

    def __init__(self, fleet: Identities, folder: Path) -> None:
        self.fleet = fleet
        self.journal = Journal(build_node_report(NODE))
        self.daemon = ConsoleDaemon(NODE, self.journal)
        self.guest = GuestPorts()
        self.registry = CollectorRegistry()
        self.context = fleet.server()
        self.epoch_path = folder / "epoch"
        self.server = Server(
            self.daemon, self.journal, EpochGuard(self.epoch_path), ApiMetrics(self.registry), forwarder=self.guest
        )
        self.port = 0

    @property
    def url(self) -> str:
        """Return the URL of the server."""
        return f"https://127.0.0.1:{self.port}"

    def session(self, tls: ssl.SSLContext) -> aiohttp.ClientSession:
        """Return a session whose every request is made with these TLS settings, to this node's name."""
        connector = aiohttp.TCPConnector(ssl=tls)
        return aiohttp.ClientSession(self.url, connector=connector, timeout=aiohttp.ClientTimeout(total=20))

    @asynccontextmanager
    async def connect(self, pair: KeyPair | None) -> AsyncIterator["Peer"]:
        """Connect with a certificate."""
        async with self.session(self.fleet.client(pair)) as session:
            yield Peer(session)

    def metric(self, name: str, **labels: str) -> float:
        """Return a counter."""
        return self.registry.get_sample_value(name, labels) or 0.0


@dataclass
class Peer:
    """Somebody who speaks to the node."""

    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: bytes | None = None, epoch: str | None = "1"
    ) -> tuple[int, dict[str, object]]:
        """Return status and document of the answer."""
        headers = {"Virtfleet-Epoch": epoch} if epoch is not None else {}
        async with self.session.request(method, path, data=body, headers=headers, server_hostname=NODE) as response:
            return response.status, await response.json()


@pytest.fixture(scope="session")
def fleet() -> Identities:
    """The certificates of the fleet."""
    return Identities()


@pytest.fixture
async def node(fleet: Identities, tmp_path: Path) -> AsyncIterator[RunningNode]:
    """A node that listens."""
    running = RunningNode(fleet, tmp_path)
    running.port = await running.server.start("127.0.0.1", 0, running.context)
    try:
        yield running
    finally:
        async with asyncio.timeout(20):
            await running.server.stop()


@pytest.fixture
async def operator(node: RunningNode, fleet: Identities) -> AsyncIterator[Peer]:
    """An operator of the fleet."""
    async with node.connect(fleet.operator()) as peer:
        yield peer
