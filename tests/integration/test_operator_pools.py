"""Pools of a VMNode with a real API server, a real operator process and simulated nodes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from operator_rig import Rig, rig
from virtfleet_api.pool import Pool, PoolSet
from virtfleet_api.report import PoolReport
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_operator.kube.paths import EVENTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

GIB = 1 << 30
FAST = {"name": "fast", "path": "/srv/pools/fast"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("operator")) as built:
        await built.start_operator()
        await built.add_node("node-a")
        yield built


async def wait_condition(fleet: Rig, kind: str, name: str, type_: str, reason: str | None) -> dict[str, str]:
    async def holds() -> bool:
        return (await fleet.condition(kind, name, type_)).get("reason") == reason

    await fleet.eventually(holds, f"{type_} of {name} is {reason}")
    return await fleet.condition(kind, name, type_)


def report(fleet: Rig, *pools: PoolReport) -> None:
    """Have the node report these pools."""
    daemon = fleet.nodes["node-a"].daemon
    daemon.pools = pools
    daemon.journal.publish_node(daemon.node_report())


async def test_the_node_is_told_its_pools_also_after_it_was_away(fleet: Rig) -> None:
    node = fleet.nodes["node-a"]
    await fleet.patch("VMNode", "node-a", {"spec": {"pools": [FAST]}})
    await wait_condition(fleet, "VMNode", "node-a", "PoolsReady", "Ready")
    wanted = PoolSet(items=(Pool(name="fast", path="/srv/pools/fast"),))
    assert node.daemon.wanted_pools == wanted
    node.daemon.wanted_pools = None
    await node.stop()
    await node.start()

    async def told() -> bool:
        return node.daemon.wanted_pools == wanted

    await fleet.eventually(told, "the pools are sent to a new process")
    await fleet.patch("VMNode", "node-a", {"spec": {"pools": []}})
    await wait_condition(fleet, "VMNode", "node-a", "PoolsReady", None)
    assert node.daemon.wanted_pools == PoolSet()


async def test_a_pool_nearly_full_takes_no_machine_until_it_has_room(fleet: Rig) -> None:
    pool = PoolReport(name="default", capacity_bytes=10 * GIB, free_bytes=GIB, nearly_full=True)
    report(fleet, pool)
    said = await wait_condition(fleet, "VMNode", "node-a", "Pressure", "PoolNearlyFull")
    assert said["message"].startswith("Nearly full: pool default (90% used).")
    disks = [{"name": "root", "size": "2Gi", "source": {"blank": {}}}]
    await fleet.create_machine("waits", disks=disks)
    ready = await wait_condition(fleet, "VirtualMachine", "waits", "Ready", "Unschedulable")
    assert ready["message"] == "0/1 nodes fit: 1 with pool default nearly full"
    report(fleet, pool.model_copy(update={"nearly_full": False}))
    await fleet.wait_word("waits", "Running")
    await wait_condition(fleet, "VMNode", "node-a", "Pressure", None)
    events = await fleet.client.get(EVENTS.collection("default"))
    reasons = [e["reason"] for e in events["items"] if e["involvedObject"]["name"] == "node-a"]
    assert reasons.count("PoolNearlyFull") == reasons.count("PressureRelieved") == 1


async def test_disks_are_promised_up_to_the_limit_of_a_pool(fleet: Rig) -> None:
    pool = PoolReport(name="limited", capacity_bytes=10 * GIB, free_bytes=GIB, committed_bytes=GIB, limit_bytes=6 * GIB)
    report(fleet, pool)
    disks = [{"name": "root", "size": "2Gi", "pool": "limited", "source": {"blank": {}}}]
    for name in ("one", "two", "three"):
        await fleet.create_machine(name, disks=disks)
    words = {"Running": 2, "Unschedulable": 1}

    async def settled() -> bool:
        found = [await fleet.word(name) for name in ("one", "two", "three")]
        return {word: found.count(word) for word in words} == words

    # The third fits neither while the node reports the disks of the others nor before.
    await fleet.eventually(settled, "two of three machines have room")
