"""The watch stream over real TLS: resumed, silent, stalled, ended, and read by too many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from identities import NODE, UID, Identities
from polling import until
from virtfleet_api.node_api import WATCH_EVENT, Heartbeat, MachineChanged, Snapshot, WatchEvent
from virtfleet_api.report import MachineReport, Phase
from virtfleet_node.api import streams
from virtfleet_node.api.journal import Journal
from virtfleet_operator.fleet.client import Dialer, NodeClient

if TYPE_CHECKING:
    from conftest import Peer, RunningNode


@asynccontextmanager
async def watching(peer: "Peer", cursor: str | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
    query = {"cursor": cursor} if cursor else {}
    timeout = aiohttp.ClientTimeout(total=None)
    async with peer.session.get("/v1/watch", params=query, server_hostname=NODE, timeout=timeout) as response:
        yield response


async def read(stream: aiohttp.ClientResponse) -> WatchEvent:
    async with asyncio.timeout(10):
        return WATCH_EVENT.validate_json(await stream.content.readline())


async def test_a_stream_begins_with_the_whole_state_and_goes_on(operator: "Peer", node: "RunningNode") -> None:
    async with watching(operator) as stream:
        assert stream.content_type == "application/x-ndjson"
        first = await read(stream)
        assert isinstance(first, Snapshot)
        assert first.node.name == NODE
        node.daemon.invent(UID, "shop", "web")
        event = await read(stream)
        assert isinstance(event, MachineChanged)
        assert node.metric("virtfleet_node_watchers") == 1


async def test_a_reader_that_comes_back_is_told_what_it_missed(operator: "Peer", node: "RunningNode") -> None:
    async with watching(operator) as stream:
        cursor = (await read(stream)).cursor
    node.daemon.invent(UID, "shop", "web")
    async with watching(operator, cursor) as stream:
        assert isinstance(await read(stream), MachineChanged)


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal.watch, "__defaults__", (0.01,))


@pytest.mark.usefixtures("quick_heart")
async def test_a_silent_stream_beats(operator: "Peer") -> None:
    async with watching(operator) as stream:
        events = [await read(stream) for _ in range(3)]
    assert [type(event) for event in events] == [Snapshot, Heartbeat, Heartbeat]


async def test_the_operators_own_client_follows_the_stream(node: "RunningNode", fleet: Identities) -> None:
    context = fleet.client(fleet.operator())
    async with aiohttp.ClientSession() as session:
        client = NodeClient(Dialer(session, lambda: context, 1), NODE, f"127.0.0.1:{node.port}")
        events = client.watch(None, 10)
        assert isinstance(await anext(events), Snapshot)
        node.daemon.invent(UID, "shop", "web")
        assert isinstance(await anext(events), MachineChanged)


@pytest.mark.usefixtures("quick_heart")
async def test_a_reader_that_has_gone_is_forgotten(operator: "Peer", node: "RunningNode") -> None:
    async with watching(operator) as stream:
        await read(stream)
    node.daemon.invent(UID, "shop", "web")
    node.daemon.invent(UID, "shop", "web-2")
    await until(lambda: node.metric("virtfleet_node_watchers") == 0)
    assert node.metric("virtfleet_node_requests_total", method="GET", status="500") == 0


async def test_a_reader_that_takes_nothing_is_cut_off(
    operator: "Peer", node: "RunningNode", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.server._streams, "_stall_seconds", 0.2)
    async with watching(operator) as stream:
        await read(stream)
        for number in range(200):
            message = f"{number:065536}"
            report = MachineReport(uid=UID, namespace="shop", name="web", phase=Phase.FAILED, message=message)
            node.journal.publish_machine(report)
        await until(lambda: node.metric("virtfleet_node_watchers") == 0)


async def test_the_number_of_readers_is_bounded(operator: "Peer", node: "RunningNode", fleet: Identities) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(streams.MOST_READERS):
            peer = await stack.enter_async_context(node.connect(fleet.operator()))
            await read(await stack.enter_async_context(watching(peer)))
        status, problem = await operator.ask("GET", "/v1/watch")
        assert (status, problem["reason"]) == (503, "Unavailable")


async def test_a_daemon_that_stops_ends_its_streams_at_once(operator: "Peer", node: "RunningNode") -> None:
    async with watching(operator) as stream:
        await read(stream)
        async with asyncio.timeout(1.5):  # sooner than the two seconds that open requests are given
            await node.server.stop()
        with pytest.raises(aiohttp.ClientError):
            await stream.read()
