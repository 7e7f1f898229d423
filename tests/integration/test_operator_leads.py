"""Several operators: one leads, and who follows a leader that died, stopped or froze does no harm with it."""

import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from operator_rig import Rig, rig
from virtfleet_dev.control_plane import ControlPlane

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("leading")) as built:
        await built.start_operator("one")
        await built.add_node("node-a")
        yield built


async def follow(fleet: Rig, identity: str) -> None:
    """Start an operator beside the one that leads, and see that it only waits."""
    operator = await fleet.start_operator(identity, wait=False)

    await fleet.eventually(operator.waits, f"{identity} is ready to follow")
    assert (await operator.probe("/healthz"))[0] == 200
    assert not await operator.leads()


async def run_one(fleet: Rig, name: str) -> str:
    """Create a machine, see it run, and return its UID."""
    made = await fleet.create_machine(name)
    await fleet.wait_word(name, "Running")
    return str(made["metadata"]["uid"])


async def import_one(fleet: Rig, name: str) -> None:
    """Create an image and wait until a node holds it."""
    await fleet.create("VMImage", name, {"source": {"http": {"url": "http://images.example/one.qcow2"}}})
    await fleet.eventually(lambda: fleet.is_ready("VMImage", name), f"{name} is imported")


async def import_nothing(fleet: Rig, name: str) -> None:
    """Create an image that no node can import now, and see that this is said."""
    await fleet.create("VMImage", name, {"source": {"http": {"url": "http://images.example/two.qcow2"}}})

    async def pending() -> bool:
        return (await fleet.condition("VMImage", name, "Ready")).get("reason") == "Pending"

    await fleet.eventually(pending, f"{name} waits for a node")


def written_of(fleet: Rig) -> tuple[int, int]:
    """Return how often the machine and the image that were there before have been written."""
    return len(fleet.writes("virtualmachines", "before")), len(fleet.writes("vmimages", "kept"))


async def test_a_dead_leader_is_followed_in_a_higher_epoch_and_nothing_is_done_twice(fleet: Rig) -> None:
    await follow(fleet, "two")
    await run_one(fleet, "before")
    await import_one(fleet, "kept")
    epoch, written = await fleet.epoch(), written_of(fleet)
    await fleet.kill_operator("one")
    await fleet.eventually(fleet.operators["two"].leads, "two leads")
    assert await fleet.epoch() > epoch
    await run_one(fleet, "after")
    assert written_of(fleet) == written


async def test_an_image_stays_ready_while_its_node_is_silent(fleet: Rig) -> None:
    await follow(fleet, "between")
    written = len(fleet.writes("vmimages", "kept"))
    await fleet.nodes["node-a"].stop()
    await fleet.kill_operator("two")
    await fleet.eventually(fleet.operators["between"].leads, "between leads")

    async def given_up() -> bool:
        return (await fleet.condition("VMNode", "node-a", "Ready")).get("status") != "True"

    await fleet.eventually(given_up, "node-a is taken for lost")
    await import_nothing(fleet, "late")
    assert await fleet.is_ready("VMImage", "kept")
    assert len(fleet.writes("vmimages", "kept")) == written
    await fleet.nodes["node-a"].start()
    await fleet.eventually(lambda: fleet.is_ready("VMImage", "late"), "the node is back and imports")


async def test_a_leader_that_is_asked_to_stop_hands_over(fleet: Rig) -> None:
    await follow(fleet, "three")
    epoch = await fleet.epoch()
    await fleet.stop_operator("between")
    await fleet.eventually(fleet.operators["three"].leads, "three leads")
    assert await fleet.epoch() == epoch + 1
    await run_one(fleet, "handed-over")


async def test_a_leader_that_froze_ends_when_it_thaws(fleet: Rig) -> None:
    await follow(fleet, "four")
    epoch = await fleet.epoch()
    frozen = fleet.operators.pop("three")
    pid = frozen.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await fleet.eventually(fleet.operators["four"].leads, "four leads")
        uid = await run_one(fleet, "thawed")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert frozen.process.wait_gone(30)
    assert await fleet.epoch() > epoch
    assert fleet.nodes["node-a"].daemon.reports[uid].uid == uid
    assert await fleet.word("thawed") == "Running"
