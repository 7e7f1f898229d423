"""A machine that waits for room is placed the moment there is some, whatever made it; nothing is polled."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE_SECONDS = 5.0
"""Far less than the minute after which the queue tries again what failed; on an idle machine it is half a second."""

TAINT = {"key": "gpu", "effect": "NoSchedule"}
LARGE = {"guest": "12Gi"}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave neither machine nor change of a node to the next test."""
    yield
    await fleet.clear("VirtualMachine", "VMClass")
    for name in fleet.nodes:
        empty = {"maintenance": None, "taints": None, "overcommit": None, "pools": None}
        await fleet.patch("VMNode", name, {"spec": empty, "metadata": {"labels": None}})


async def waits(fleet: Rig, name: str, said: str, **spec: Any) -> None:
    """Create a machine that finds no room, and says why."""
    await fleet.create_machine(name, **spec)
    await fleet.wait_word(name, "Unschedulable")
    assert (await fleet.condition("VirtualMachine", name, "Scheduled"))["message"] == f"0/2 nodes fit: {said}"


async def is_placed_at_once(fleet: Rig, name: str) -> None:
    """Wait until the machine runs, which takes as long as it takes to be woken."""
    begun = time.monotonic()
    await fleet.wait_word(name, "Running")
    assert time.monotonic() - begun < AT_ONCE_SECONDS


async def change(fleet: Rig, node: str, **spec: Any) -> None:
    await fleet.patch("VMNode", node, {"spec": spec})


async def test_maintenance_ends(fleet: Rig) -> None:
    await change(fleet, "node-a", maintenance=True)
    await change(fleet, "node-b", maintenance=True)
    await waits(fleet, "waits", "2 in maintenance")
    found = await fleet.condition("VMNode", "node-b", "Schedulable")
    assert (found["status"], found["reason"]) == ("False", "Maintenance")
    await change(fleet, "node-b", maintenance=False)
    await is_placed_at_once(fleet, "waits")


async def test_a_taint_goes_and_a_label_comes(fleet: Rig) -> None:
    await change(fleet, "node-a", taints=[TAINT])
    await fleet.patch("VMNode", "node-a", {"metadata": {"labels": {"zone": "east"}}})
    await waits(fleet, "waits", "1 not matching nodeSelector, 1 with taint gpu", nodeSelector={"zone": "east"})
    await change(fleet, "node-a", taints=[])
    await is_placed_at_once(fleet, "waits")
    await waits(fleet, "west", "2 not matching nodeSelector", nodeSelector={"zone": "west"})
    await fleet.patch("VMNode", "node-b", {"metadata": {"labels": {"zone": "west"}}})
    await is_placed_at_once(fleet, "west")


async def test_more_is_promised_of_a_node_or_a_pool_comes(fleet: Rig) -> None:
    disks = [{"name": "data", "size": "1Gi", "pool": "fast", "source": {"blank": {}}}]
    await waits(fleet, "on-fast", "2 without pool fast", disks=disks)
    await change(fleet, "node-b", pools=[{"name": "fast", "path": "/srv/fast"}])
    await is_placed_at_once(fleet, "on-fast")
    await waits(fleet, "huge", "2 with too little free memory", memory={"guest": "20Gi"})
    await change(fleet, "node-a", overcommit={"memory": "1.5"})
    await is_placed_at_once(fleet, "huge")


async def test_a_machine_shrinks_or_goes(fleet: Rig) -> None:
    for name in ("large-1", "large-2"):
        await fleet.create_machine(name, memory=LARGE)
        await fleet.wait_word(name, "Running")
    await waits(fleet, "next-1", "2 with too little free memory", memory=LARGE)
    await waits(fleet, "next-2", "2 with too little free memory", memory={"guest": "10Gi"})
    await fleet.patch("VirtualMachine", "large-1", {"spec": {"memory": {"guest": "2Gi"}}})
    await is_placed_at_once(fleet, "next-1")
    assert await fleet.word("next-2") == "Unschedulable"
    await fleet.delete("VirtualMachine", "large-2")
    await is_placed_at_once(fleet, "next-2")


async def test_machines_keep_apart_until_one_goes_and_together_once_one_is_there(fleet: Rig) -> None:
    web = {"labelSelector": {"matchLabels": {"app": "web"}}}
    apart = {"affinity": {"vmAntiAffinity": {"required": [web]}}}
    spec = {"memory": {"guest": "512Mi"}, **apart, "runStrategy": "Halted"}
    for name in ("web-1", "web-2"):
        await fleet.create("VirtualMachine", name, spec, labels={"app": "web"})
        await fleet.wait_word(name, "Stopped")
    places = {(await fleet.get("VirtualMachine", name) or {})["status"]["nodeName"] for name in ("web-1", "web-2")}
    assert places == set(fleet.nodes)
    await fleet.create("VirtualMachine", "web-3", {**spec, "runStrategy": "Always"}, labels={"app": "web"})
    await fleet.wait_word("web-3", "Unschedulable")
    said = (await fleet.condition("VirtualMachine", "web-3", "Scheduled"))["message"]
    assert said == "0/2 nodes fit: 2 near a machine of its vmAntiAffinity"
    await fleet.delete("VirtualMachine", "web-1")
    await is_placed_at_once(fleet, "web-3")

    near = {"affinity": {"vmAffinity": {"required": [{"labelSelector": {"matchLabels": {"app": "db"}}}]}}}
    await waits(fleet, "beside", "2 not near the machines of its vmAffinity", **near)
    await fleet.create("VirtualMachine", "db", {"memory": {"guest": "512Mi"}}, labels={"app": "db"})
    await is_placed_at_once(fleet, "beside")
    found = [(await fleet.get("VirtualMachine", name) or {})["status"]["nodeName"] for name in ("db", "beside")]
    assert found[0] == found[1]


async def test_a_node_joins(fleet: Rig) -> None:
    await waits(fleet, "waits", "2 not matching nodeSelector", nodeSelector={"kubernetes.io/hostname": "node-c"})
    await fleet.add_node("node-c")
    await is_placed_at_once(fleet, "waits")
