"""Kept disks between machines, objects and nodes that go away: a real API server and operator, simulated nodes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SPACE, Rig
from virtfleet_api.machine import RetainedSource
from virtfleet_api.names import API_VERSION
from virtfleet_api.vm_disk import VMDiskSpec
from virtfleet_operator.core.validate.disk_object import disk_object_name
from virtfleet_operator.kube.errors import RefusedError
from virtfleet_operator.kube.paths import OUR_PATHS

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = {"name": "data", "size": "1Gi", "source": {"blank": {}}, "reclaimPolicy": "Retain"}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave nothing to the next test."""
    yield
    await fleet.clear("VirtualMachine", "VMDisk")


async def found(fleet: Rig) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await fleet.client.get(OUR_PATHS["VMDisk"].collection(SPACE)))["items"]
    return items


async def phases(fleet: Rig) -> list[str]:
    return [disk.get("status", {}).get("phase", "") for disk in await found(fleet)]


async def wait_phases(fleet: Rig, *expected: str) -> None:
    async def so() -> bool:
        return await phases(fleet) == list(expected)

    await fleet.eventually(so, f"the VMDisks are {expected}")


async def delete(fleet: Rig, kind: str, name: str) -> None:
    await fleet.client.delete(OUR_PATHS[kind].object("" if kind == "VMNode" else SPACE, name))


async def leave(fleet: Rig) -> dict[str, Any]:
    """Make a machine, delete it, and return the VMDisk that stays."""
    made = await fleet.create_machine("former", disks=[DATA])
    await fleet.wait_word("former", "Running")
    await delete(fleet, "VirtualMachine", "former")
    await fleet.wait_gone("VirtualMachine", "former")
    (disk,) = await found(fleet)
    assert disk["status"]["phase"] == "Available", "there before the machine is gone"
    assert disk["spec"]["formerMachine"] == {"name": "former", "uid": made["metadata"]["uid"]}
    return disk


def adopting(disk: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"name": "mine", "source": {"vmDisk": {"name": disk["metadata"]["name"]}}, **more}]


async def test_a_disk_is_handed_on_once_and_its_object_goes(fleet: Rig) -> None:
    disk = await leave(fleet)
    node = fleet.nodes[disk["spec"]["nodeName"]].daemon
    uid = disk["spec"]["formerMachine"]["uid"]
    await fleet.create_machine("next", disks=adopting(disk))
    await fleet.wait_word("next", "Running")
    await fleet.wait_gone("VMDisk", disk["metadata"]["name"])
    told = [d for order in node.instructions for d in getattr(getattr(order, "hardware", None), "disks", ())]
    assert RetainedSource(machine_uid=uid, name="data") in [d.source for d in told]
    assert not node.kept.get(uid)


async def test_operators_that_are_killed_lose_no_disk_and_make_none_twice(fleet: Rig) -> None:
    for name in ("one-of-three", "two-of-three", "three-of-three"):
        await fleet.create_machine(name, disks=[DATA])
        await fleet.wait_word(name, "Running")
        await delete(fleet, "VirtualMachine", name)
    await fleet.kill_operator("one")
    await fleet.start_operator()
    await wait_phases(fleet, *["Available"] * 3)
    for name in ("one-of-three", "two-of-three", "three-of-three"):
        await fleet.wait_gone("VirtualMachine", name)
    for disk in await found(fleet):
        await delete(fleet, "VMDisk", disk["metadata"]["name"])
    await wait_phases(fleet)
    assert not any(left for node in fleet.nodes.values() for left in node.daemon.kept.values())


async def test_a_name_that_is_taken_by_another_object_keeps_the_machine(fleet: Rig) -> None:
    made = await fleet.create_machine("victim", disks=[DATA])
    await fleet.wait_word("victim", "Running")
    node = (await fleet.get("VirtualMachine", "victim") or {})["status"]["nodeName"]
    former = {"name": "victim", "uid": made["metadata"]["uid"]}
    spec = {"nodeName": node, "pool": "default", "disk": "data", "formerMachine": former}
    name = disk_object_name(VMDiskSpec.model_validate(spec))
    await fleet.create("VMDisk", name, spec | {"disk": "another"})
    await delete(fleet, "VirtualMachine", "victim")

    async def says() -> bool:
        return "delete it" in (await fleet.condition("VirtualMachine", "victim", "Ready")).get("message", "")

    await fleet.eventually(says, "the machine says what is in its way")
    await delete(fleet, "VMDisk", name)
    await fleet.wait_gone("VirtualMachine", "victim")
    await wait_phases(fleet, "Available")


async def test_a_spec_that_was_changed_moves_and_removes_nothing(fleet: Rig) -> None:
    disk = await leave(fleet)
    name, uid = disk["metadata"]["name"], disk["spec"]["formerMachine"]["uid"]
    path = OUR_PATHS["VMDisk"].object(SPACE, name)
    other = {"formerMachine": {"name": "former", "uid": "99999999-2222-3333-4444-555555555555"}}
    await fleet.client.patch(path, {"spec": other})  # the webhook is off here

    async def says() -> bool:
        return (await fleet.condition("VMDisk", name, "Ready")).get("reason") == "Invalid"

    await fleet.eventually(says, "the change is seen")
    await delete(fleet, "VMDisk", name)
    await fleet.client.patch(path, {"spec": {"formerMachine": {"name": "former", "uid": uid}}})
    await fleet.wait_gone("VMDisk", name)
    assert not fleet.nodes[disk["spec"]["nodeName"]].daemon.kept.get(uid)


async def test_a_machine_goes_with_its_namespace_and_its_disk_stays_on_the_node(fleet: Rig) -> None:
    space, path = "/api/v1/namespaces", OUR_PATHS["VirtualMachine"]
    await fleet.client.create(space, {"metadata": {"name": "ends"}})
    spec = {"memory": {"guest": "512Mi"}, "disks": [DATA]}
    body = {"apiVersion": API_VERSION, "kind": "VirtualMachine", "metadata": {"name": "last"}, "spec": spec}
    uid = (await fleet.client.create(path.collection("ends"), body))["metadata"]["uid"]

    async def runs() -> bool:
        found = await fleet.client.get(path.object("ends", "last"))
        return found.get("status", {}).get("printableStatus") == "Running"

    await fleet.eventually(runs, "the machine runs")
    await fleet.client.delete(f"{space}/ends")

    async def closed() -> bool:
        try:
            await fleet.client.create(path.collection("ends"), body | {"metadata": {"generateName": "late-"}})
        except RefusedError:
            return True
        return False

    await fleet.eventually(closed, "the namespace takes nothing new")
    for item in (await fleet.client.get(path.collection("ends")))["items"]:
        await fleet.client.delete(path.object("ends", item["metadata"]["name"]))

    async def gone() -> bool:
        return not (await fleet.client.get(path.collection("ends")))["items"]

    await fleet.eventually(gone, "the machine is gone")
    assert any(node.daemon.kept.get(uid) for node in fleet.nodes.values())
    ends = await fleet.client.get(f"{space}/ends")
    await fleet.client.replace(f"{space}/ends/finalize", ends | {"spec": {"finalizers": []}})


async def test_a_node_that_is_away_keeps_the_object_and_one_that_left_lets_it_go(fleet: Rig) -> None:
    disk = await leave(fleet)
    name, node = disk["metadata"]["name"], disk["spec"]["nodeName"]
    await fleet.nodes[node].stop()

    async def lost() -> bool:
        return not await fleet.is_ready("VMNode", node)

    await fleet.eventually(lost, "the node is silent")
    await delete(fleet, "VMDisk", name)

    async def waits() -> bool:
        return "does not answer" in (await fleet.condition("VMDisk", name, "Ready")).get("message", "")

    await fleet.eventually(waits, "the object waits for its node")
    await fleet.nodes[node].resume()
    await fleet.wait_gone("VMDisk", name)
    await fleet.eventually(lambda: fleet.is_ready("VMNode", node), "the node is back")

    disk = await leave(fleet)
    name, node = disk["metadata"]["name"], disk["spec"]["nodeName"]
    await delete(fleet, "VMNode", node)
    await wait_phases(fleet, "Lost")
    assert "left the fleet" in (await fleet.condition("VMDisk", name, "Ready"))["message"]
    await delete(fleet, "VMDisk", name)
    await fleet.wait_gone("VMDisk", name)
    assert fleet.nodes[node].daemon.kept[disk["spec"]["formerMachine"]["uid"]], "nobody was told to remove the file"
