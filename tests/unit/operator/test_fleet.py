"""The fleet against a node's real server: instructions, streams, silence, and peers that lie."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from polling import until
from simulated_node import SimulatedNode, running
from virtfleet_api.image import Download, Image
from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.node_api import MachineChanged, Snapshot
from virtfleet_api.report import MachineReport, Phase
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_api.vm_snapshot import SnapshotPhase
from virtfleet_node.core.errors import ConflictError
from virtfleet_operator.fleet import state as state_module
from virtfleet_operator.fleet.client import NodeClient
from virtfleet_operator.fleet.errors import (
    NodeProtocolError,
    NodeRefusedError,
    NodeUnavailableError,
    StaleEpochError,
)
from virtfleet_operator.fleet.members import Fleet
from virtfleet_operator.fleet.state import Contact, NodeState

NAME = "node-a"
UID = "3b3e7a3c-6d4f-4a53-9a39-1f35b7f1a001"
OTHER = "3b3e7a3c-6d4f-4a53-9a39-1f35b7f1a002"
SILENCE = 0.6
HEARTBEAT = 0.15


def machine(run: Run = Run.RUNNING, uid: str = UID, cores: int = 1) -> Machine:
    hardware = Hardware(memory_bytes=1 << 29, cores=cores)
    return Machine(uid=uid, namespace="shop", name="web-1", run=run, hardware=hardware)


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def machine_changed(self, node: str, uid: str) -> None:
        self.told.append(("machine", node, uid))

    def image_changed(self, node: str, uid: str) -> None:
        self.told.append(("image", node, uid))

    def snapshot_changed(self, node: str, uid: str) -> None:
        self.told.append(("snapshot", node, uid))

    def node_changed(self, node: str) -> None:
        self.told.append(("node", node))

    def everything_changed(self, node: str) -> None:
        self.told.append(("everything", node))


class Setup:
    """A node and a fleet that follows it."""

    def __init__(self, node: SimulatedNode, fleet: Fleet, listener: Listener, stale: list[str]) -> None:
        self.node = node
        self.fleet = fleet
        self.listener = listener
        self.stale = stale

    @property
    def state(self) -> NodeState:
        state = self.fleet.node(NAME)
        assert state
        return state

    async def heard(self) -> None:
        await until(lambda: self.state.contact is Contact.HEARD)


@pytest.fixture
async def setup(certificates: Any, dial: Any, tmp_path: Path) -> AsyncIterator[Setup]:
    node = SimulatedNode(NAME, lambda: certificates.server(NAME), tmp_path, heartbeat_seconds=HEARTBEAT)
    listener, stale = Listener(), list[str]()
    async with running(node):
        fleet = Fleet(dial(7), listener, stale.append, silence_seconds=SILENCE)
        fleet.ensure(NAME, node.address)
        try:
            yield Setup(node, fleet, listener, stale)
        finally:
            await fleet.close()


async def test_what_the_node_knows_is_not_sent_again(setup: Setup) -> None:
    await setup.heard()
    for _ in range(3):
        await setup.fleet.put_machine(NAME, machine())
    assert len(setup.node.daemon.instructions) == 1
    await setup.fleet.put_machine(NAME, machine(cores=2))
    assert len(setup.node.daemon.instructions) == 2
    await until(lambda: setup.state.machines[UID].phase is Phase.RUNNING)
    assert ("machine", NAME, UID) in setup.listener.told


async def test_a_new_process_is_told_everything_again(setup: Setup) -> None:
    await setup.heard()
    await setup.fleet.put_machine(NAME, machine())
    await until(lambda: setup.state.machines.get(UID))
    before = setup.state.instance
    await setup.node.stop()
    await setup.node.start()
    await until(lambda: setup.state.instance > before)
    assert setup.state.machines.keys() == {UID}
    await setup.fleet.put_machine(NAME, machine())
    assert len(setup.node.daemon.instructions) == 2


async def test_a_broken_connection_is_resumed_where_it_broke(setup: Setup) -> None:
    await setup.heard()
    await setup.fleet.put_machine(NAME, machine())
    await until(lambda: setup.state.machines.get(UID) and setup.state.machines[UID].phase is Phase.RUNNING)
    before = setup.state.instance
    await setup.node.stop()
    setup.node.daemon.crash(UID)
    await setup.node.resume()
    await until(lambda: setup.state.machines[UID].phase is Phase.STOPPED)
    assert setup.state.instance == before
    await setup.fleet.put_machine(NAME, machine())
    assert len(setup.node.daemon.instructions) == 1


async def test_a_short_break_is_not_worth_a_word_a_long_one_is(setup: Setup) -> None:
    await setup.heard()
    setup.listener.told.clear()
    await setup.node.stop()
    await setup.node.resume()
    await setup.fleet.put_machine(NAME, machine())
    await until(lambda: UID in setup.state.machines)
    assert ("everything", NAME) not in setup.listener.told
    await setup.node.stop()
    await until(lambda: setup.state.contact is Contact.LOST)
    assert ("everything", NAME) in setup.listener.told
    await setup.node.resume()
    await setup.heard()
    assert setup.listener.told.count(("everything", NAME)) == 2


async def test_a_node_that_never_answers_is_lost_after_the_silence(dial: Any) -> None:
    listener = Listener()
    fleet = Fleet(dial(7), listener, lambda _: None, silence_seconds=0.3)
    fleet.ensure(NAME, "127.0.0.1:9")
    assert fleet.contact(NAME) is Contact.CONNECTING
    await until(lambda: fleet.contact(NAME) is Contact.LOST)
    assert listener.told == [("everything", NAME)]
    with pytest.raises(NodeUnavailableError, match=r"node-a at 127\.0\.0\.1:9"):
        await fleet.put_machine(NAME, machine())
    await fleet.close()


async def test_a_machine_is_gone_once_the_node_says_so(setup: Setup) -> None:
    await setup.heard()
    await setup.fleet.put_machine(NAME, machine())
    await until(lambda: UID in setup.state.machines)
    await setup.fleet.put_machine(NAME, machine(Run.ABSENT))
    assert UID in setup.state.gone
    assert UID not in setup.state.machines
    # Whoever wants it again is not kept from it by what was said before.
    await setup.fleet.put_machine(NAME, machine())
    await until(lambda: UID in setup.state.machines and UID not in setup.state.gone)


async def test_removing_by_what_is_stored_takes_unknown_for_removed(setup: Setup) -> None:
    await setup.heard()
    await setup.fleet.delete_machine(NAME, OTHER)
    assert OTHER in setup.state.gone


async def test_an_older_leader_is_refused_and_told(setup: Setup, dial: Any) -> None:
    await setup.heard()
    await setup.fleet.put_machine(NAME, machine())
    stale: list[str] = []
    former = Fleet(dial(6), Listener(), stale.append)
    former.ensure(NAME, setup.node.address)
    with pytest.raises(StaleEpochError, match="has taken the lead"):
        await former.put_machine(NAME, machine(Run.STOPPED))
    assert len(stale) == 1
    assert setup.stale == []
    await former.close()


async def test_a_refusal_carries_the_node_s_sentence(setup: Setup) -> None:
    await setup.heard()
    setup.node.daemon.refusal = ConflictError("Pool fast does not exist.")
    with pytest.raises(NodeRefusedError, match="Pool fast does not exist"):
        await setup.fleet.put_machine(NAME, machine())
    setup.node.daemon.refusal = None
    await setup.fleet.put_machine(NAME, machine())
    assert len(setup.node.daemon.instructions) == 2


async def test_another_node_at_the_address_is_not_spoken_to(certificates: Any, dial: Any, tmp_path: Path) -> None:
    async with running(SimulatedNode("node-b", lambda: certificates.server("node-b"), tmp_path)) as node:
        client = NodeClient(dial(7), NAME, node.address)
        with pytest.raises(NodeUnavailableError):
            await client.put_machine(machine())
        assert node.daemon.instructions == []


async def test_images_are_told_and_forgotten(setup: Setup) -> None:
    await setup.heard()
    image = Image(uid=OTHER, namespace="shop", name="debian", pool="default", main=Download(url="https://x.test/a"))
    await setup.fleet.put_image(NAME, image)
    await setup.fleet.put_image(NAME, image)
    assert len(setup.node.daemon.instructions) == 1
    await until(lambda: OTHER in setup.state.images)
    await setup.fleet.put_image(NAME, image.model_copy(update={"present": False}))
    await until(lambda: OTHER not in setup.state.images)


def snapshot(uid: str = OTHER) -> MachineSnapshot:
    return MachineSnapshot(uid=uid, namespace="shop", name="before-upgrade", machine_uid=UID)


async def test_snapshots_are_told_once_kept_and_forgotten(setup: Setup) -> None:
    await setup.heard()
    await setup.fleet.put_machine(NAME, machine())
    setup.node.daemon.snapshots.phase = SnapshotPhase.CAPTURING
    await setup.fleet.put_snapshot(NAME, snapshot())
    assert setup.state.snapshots[OTHER].phase is SnapshotPhase.CAPTURING  # before the stream says so
    await setup.fleet.put_snapshot(NAME, snapshot())
    assert len(setup.node.daemon.snapshots.told) == 1
    setup.node.daemon.snapshots.end(OTHER, SnapshotPhase.READY, setup.node.daemon.journal)
    await until(lambda: setup.state.snapshots[OTHER].phase is SnapshotPhase.READY)
    assert ("snapshot", NAME, OTHER) in setup.listener.told
    await setup.fleet.put_snapshot(NAME, snapshot().model_copy(update={"present": False}))
    await until(lambda: OTHER not in setup.state.snapshots)
    await setup.fleet.put_snapshot(NAME, snapshot())
    assert len(setup.node.daemon.snapshots.told) == 3


async def test_a_new_process_tells_its_snapshots_and_is_told_them_again(setup: Setup) -> None:
    await setup.heard()
    await setup.fleet.put_machine(NAME, machine())
    await setup.fleet.put_snapshot(NAME, snapshot())
    before = setup.state.instance
    await setup.node.stop()
    await setup.node.start()
    await until(lambda: setup.state.instance > before)
    assert setup.state.snapshots.keys() == {OTHER}
    await setup.fleet.put_snapshot(NAME, snapshot())
    assert len(setup.node.daemon.snapshots.told) == 2


async def test_a_node_that_left_the_fleet_is_followed_no_more(setup: Setup) -> None:
    await setup.heard()
    setup.fleet.drop(NAME)
    assert setup.fleet.node(NAME) is None
    assert setup.fleet.contact(NAME) is Contact.LOST
    with pytest.raises(NodeUnavailableError, match="has no address"):
        await setup.fleet.put_machine(NAME, machine())


async def test_a_node_that_moves_is_followed_to_its_new_address(
    setup: Setup, certificates: Any, tmp_path: Path
) -> None:
    await setup.heard()
    before = setup.state.instance
    async with running(SimulatedNode(NAME, lambda: certificates.server(NAME), tmp_path / "..")) as moved:
        setup.fleet.ensure(NAME, moved.address)
        await until(lambda: setup.state.instance > before)
        await setup.fleet.put_machine(NAME, machine())
        assert len(moved.daemon.instructions) == 1
        await setup.fleet.close()


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def hostile(certificates: Any, answer: Answer) -> AsyncIterator[str]:
    """A server with a node's certificate that answers whatever it wants."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificates.server(NAME)).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)
        await asyncio.sleep(0)  # a write to a connection that is being closed does not yield


async def redirecting(_: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("https://127.0.0.1:1/elsewhere")


async def mute(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def saying(text: str, status: int = 200) -> Answer:
    async def say(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status)

    return say


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (endless, NodeProtocolError),
        (redirecting, NodeProtocolError),
        (saying("not json"), NodeProtocolError),
        (saying("{}"), NodeProtocolError),
        (saying("boom", 500), NodeProtocolError),
        (mute, NodeUnavailableError),
    ],
)
async def test_a_hostile_answer_to_an_instruction_is_an_error_and_no_more(
    certificates: Any, dial: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[Exception]
) -> None:
    monkeypatch.setattr("virtfleet_operator.fleet.client.REQUEST_TIMEOUT_SECONDS", 0.5)
    async with hostile(certificates, answer) as address:
        with pytest.raises(error):
            await NodeClient(dial(7), NAME, address).put_machine(machine())


@pytest.mark.parametrize("answer", [endless, redirecting, mute, saying("not json\n"), saying("")])
async def test_a_hostile_stream_never_stops_the_fleet(
    certificates: Any, dial: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr("virtfleet_operator.fleet.client.SNAPSHOT_LIMIT_BYTES", 100_000)
    async with hostile(certificates, answer) as address:
        fleet = Fleet(dial(7), Listener(), lambda _: None, silence_seconds=0.4)
        fleet.ensure(NAME, address)
        await until(lambda: fleet.contact(NAME) is Contact.LOST)
        await fleet.close()


def test_a_node_cannot_fill_the_memory_with_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "MOST_REPORTS", 10)
    state = NodeState(NAME, Listener())

    def report(number: int) -> MachineReport:
        return MachineReport(uid=str(number), namespace="x", name="x", phase=Phase.RUNNING)

    for number in range(10):
        state.take(MachineChanged(cursor="c", machine=report(number)))
    with pytest.raises(NodeProtocolError, match="more than 10"):
        state.take(MachineChanged(cursor="c", machine=report(10)))
    snapshot = Snapshot(cursor="c", node=_inventory(), machines=tuple(map(report, range(11))), images=())
    with pytest.raises(NodeProtocolError, match="more than 10"):
        state.take(snapshot)


def _inventory() -> Any:
    return SimulatedNode(NAME, lambda: None, Path()).daemon.node_report()  # type: ignore[arg-type,return-value]  # never listens
