"""Restores from object to node and back: a real API server and operator, simulated nodes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SPACE, Rig
from simulated_node import SimulatedNode
from virtfleet_api.machine import ExistingSource, Machine, SnapshotDiskSource
from virtfleet_api.names import RESTORE_LABEL
from virtfleet_api.vm_snapshot import SnapshotPhase
from virtfleet_operator.kube.paths import OUR_PATHS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = {"name": "root", "size": "1Gi", "source": {"blank": {}}}
DATA = {"name": "data", "size": "2Gi", "source": {"blank": {}}}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave nothing to the next test."""
    yield
    for node in fleet.nodes.values():
        node.daemon.snapshots.phase, node.daemon.restores_end = SnapshotPhase.READY, True
    await fleet.clear("VMRestore", "VMSnapshot", "VirtualMachine")


async def capture(fleet: Rig, name: str, snapshot: str, **spec: Any) -> tuple[dict[str, Any], SimulatedNode]:
    """Create a machine and a snapshot of it; return the machine with its node."""
    await fleet.create_machine(name, **{"disks": [ROOT]} | spec)
    await fleet.wait_word(name, "Running")
    await fleet.create("VMSnapshot", snapshot, {"virtualMachine": name})
    await wait_phase(fleet, "VMSnapshot", snapshot, "Ready")
    made = await fleet.get("VirtualMachine", name)
    assert made
    return made, fleet.nodes[made["status"]["nodeName"]]


async def status(fleet: Rig, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await fleet.get(kind, name) or {}).get("status", {})
    return found


async def wait_phase(fleet: Rig, kind: str, name: str, phase: str) -> dict[str, Any]:
    async def so() -> bool:
        return (await status(fleet, kind, name)).get("phase") == phase

    await fleet.eventually(so, f"{name} is {phase}")
    return await status(fleet, kind, name)


async def wait_reason(fleet: Rig, name: str, reason: str) -> str:
    async def so() -> bool:
        return (await fleet.condition("VMRestore", name, "Complete")).get("reason") == reason

    await fleet.eventually(so, f"{name} says {reason}")
    return str((await fleet.condition("VMRestore", name, "Complete"))["message"])


async def restore(fleet: Rig, name: str, snapshot: str, machine: str, **spec: Any) -> dict[str, Any]:
    target = {"target": {"virtualMachine": machine}}
    return await fleet.create("VMRestore", name, {"snapshot": snapshot, **target, **spec})


async def restore_new(
    fleet: Rig, name: str, snapshot: str, count: int, new: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    target = {"target": {"newVirtualMachines": {"namePrefix": name, "count": count, **(new or {})}}}
    return await fleet.create("VMRestore", name, {"snapshot": snapshot, **target, **spec})


def documents(node: SimulatedNode, uid: str) -> list[Machine]:
    return [told for told in node.daemon.instructions if isinstance(told, Machine) and told.uid == uid]


async def made_machines(fleet: Rig, restore_uid: str) -> dict[str, dict[str, Any]]:
    found = await fleet.client.get(
        OUR_PATHS["VirtualMachine"].collection(SPACE), {"labelSelector": f"{RESTORE_LABEL}={restore_uid}"}
    )
    return {item["metadata"]["name"]: item for item in found["items"]}


async def test_a_machine_is_put_back_and_told_so_until_it_is(fleet: Rig) -> None:
    machine, node = await capture(fleet, "web-1", "nice")
    snapshot = await fleet.get("VMSnapshot", "nice")
    assert snapshot
    node.daemon.restores_end = False
    made = await restore(fleet, "back", "nice", "web-1")
    said = await wait_phase(fleet, "VMRestore", "back", "Restoring")
    assert said["startTime"]
    assert [m["name"] for m in said["machines"]] == ["web-1"]
    uid, token = machine["metadata"]["uid"], made["metadata"]["uid"]

    async def told() -> bool:
        asked = documents(node, uid)[-1].restore
        return asked is not None and (asked.token, asked.snapshot_uid) == (token, snapshot["metadata"]["uid"])

    await fleet.eventually(told, "the node is told")
    assert (await status(fleet, "VMRestore", "back"))["done"] == "0/1"
    node.daemon.end_restore(uid)
    said = await wait_phase(fleet, "VMRestore", "back", "Succeeded")
    assert said["done"] == "1/1"
    assert said["completionTime"]
    assert [(m["name"], m["phase"], m["warm"]) for m in said["machines"]] == [("web-1", "Succeeded", True)]
    condition = await fleet.condition("VMRestore", "back", "Complete")
    assert (condition["status"], "web-1" in condition["message"]) == ("True", True)

    async def told_no_more() -> bool:
        return documents(node, uid)[-1].restore is None

    await fleet.eventually(told_no_more, "the node is told no more")
    again = await fleet.get("VirtualMachine", "web-1")
    assert again
    assert again["spec"] == machine["spec"]
    found = await fleet.client.get(f"/api/v1/namespaces/{SPACE}/events")
    reasons = {e["reason"] for e in found["items"] if e["involvedObject"].get("uid") == token}
    assert {"Restoring", "Restored"} <= reasons


async def test_what_the_node_could_not_do_is_said(fleet: Rig) -> None:
    machine, node = await capture(fleet, "web-2", "broken")
    node.daemon.restores_end = False
    await restore(fleet, "fails", "broken", "web-2")
    await wait_phase(fleet, "VMRestore", "fails", "Restoring")

    async def begun() -> bool:
        return machine["metadata"]["uid"] in node.daemon.restored

    await fleet.eventually(begun, "the node has begun")
    node.daemon.end_restore(machine["metadata"]["uid"], "the memory does not fit this QEMU")
    said = await wait_phase(fleet, "VMRestore", "fails", "Failed")
    assert "does not fit" in said["machines"][0]["message"]
    assert "does not fit" in await wait_reason(fleet, "fails", "Failed")


async def test_it_waits_for_its_snapshot_and_for_the_restore_before_it(fleet: Rig) -> None:
    await restore(fleet, "early", "to-come", "web-3")
    assert "to-come" in await wait_reason(fleet, "early", "SnapshotNotFound")
    _, node = await capture(fleet, "web-3", "other")
    node.daemon.restores_end = False
    await fleet.create("VMSnapshot", "to-come", {"virtualMachine": "web-3"})
    await wait_phase(fleet, "VMRestore", "early", "Restoring")
    await restore(fleet, "second", "other", "web-3")
    assert "early" in await wait_reason(fleet, "second", "OtherRestore")
    await fleet.delete("VMRestore", "early")
    await wait_phase(fleet, "VMRestore", "second", "Restoring")


async def test_the_state_before_is_captured_first_and_nothing_happens_if_that_fails(fleet: Rig) -> None:
    machine, node = await capture(fleet, "web-4", "then")
    uid = machine["metadata"]["uid"]
    node.daemon.snapshots.phase = SnapshotPhase.CAPTURING
    made = await restore(fleet, "careful", "then", "web-4", snapshotFirst=True)
    await wait_reason(fleet, "careful", "Capturing")
    before = await fleet.get("VMSnapshot", "careful-before")
    assert before
    assert before["metadata"]["labels"][RESTORE_LABEL] == made["metadata"]["uid"]
    assert all(document.restore is None for document in documents(node, uid))

    async def capturing() -> bool:
        return before["metadata"]["uid"] in node.daemon.snapshots.reports

    await fleet.eventually(capturing, "it is captured")
    node.daemon.snapshots.end(before["metadata"]["uid"], SnapshotPhase.READY, node.daemon.journal)
    said = await wait_phase(fleet, "VMRestore", "careful", "Succeeded")
    assert said["snapshotBefore"] == "careful-before"

    node.daemon.snapshots.phase = SnapshotPhase.FAILED
    told = len([document for document in documents(node, uid) if document.restore])
    await restore(fleet, "unlucky", "then", "web-4", snapshotFirst=True)
    said = await wait_phase(fleet, "VMRestore", "unlucky", "Failed")
    assert "nothing was touched" in await wait_reason(fleet, "unlucky", "Failed")
    assert len([document for document in documents(node, uid) if document.restore]) == told


async def test_new_machines_are_made_with_disks_of_the_snapshot_and_no_address_of_another(fleet: Rig) -> None:
    card = {"name": "nic", "user": {}, "macAddress": "52:54:00:00:00:01"}
    await fleet.create_machine("mould", disks=[ROOT, DATA], networks=[card])
    await fleet.wait_word("mould", "Running")
    await fleet.create("VMSnapshot", "warm", {"virtualMachine": "mould", "excludeDisks": ["data"]})
    await wait_phase(fleet, "VMSnapshot", "warm", "Ready")
    mould = await fleet.get("VirtualMachine", "mould")
    snapshot = await fleet.get("VMSnapshot", "warm")
    assert mould
    assert snapshot
    made = await restore_new(fleet, "build", "warm", 3, {"resetMachineId": True})
    said = await wait_phase(fleet, "VMRestore", "build", "Succeeded")
    assert said["done"] == "3/3"
    assert [(m["name"], m["warm"]) for m in said["machines"]] == [(f"build-{n}", True) for n in (1, 2, 3)]
    for number in (1, 2, 3):
        await fleet.wait_word(f"build-{number}", "Running")  # the restore may say first that it is done
    machines = await made_machines(fleet, made["metadata"]["uid"])
    assert sorted(machines) == ["build-1", "build-2", "build-3"]
    node = fleet.nodes[snapshot["status"]["nodeName"]]
    for machine in machines.values():
        assert machine["status"]["nodeName"] == node.name
        assert "ownerReferences" not in machine["metadata"]
        assert [d["source"] for d in machine["spec"]["disks"]] == [{"snapshot": {"name": "warm", "disk": "root"}}]
        assert "macAddress" not in machine["spec"]["networks"][0]
        first = documents(node, machine["metadata"]["uid"])[0]
        assert first.restore
        assert (first.restore.token, first.restore.machine_id) == (made["metadata"]["uid"], True)
        source = first.hardware.disks[0].source
        assert isinstance(source, SnapshotDiskSource)
        assert (source.snapshot_uid, source.name) == (snapshot["metadata"]["uid"], "root")
    await fleet.delete("VMRestore", "build")
    await fleet.wait_gone("VMRestore", "build")
    assert sorted(await made_machines(fleet, made["metadata"]["uid"])) == sorted(machines)

    async def forgotten() -> bool:
        last = documents(node, machines["build-1"]["metadata"]["uid"])[-1]
        return last.restore is None and isinstance(last.hardware.disks[0].source, ExistingSource)

    await fleet.eventually(forgotten, "the snapshot is looked for no more")


async def test_a_new_machine_that_is_put_back_is_not_made_anew_while_others_of_it_wait(fleet: Rig) -> None:
    _, node = await capture(fleet, "stem", "stock")
    node.daemon.restores_end = False
    made = await restore_new(fleet, "pair", "stock", 2, memory=False)
    machines: dict[str, dict[str, Any]] = {}

    async def both_begun() -> bool:
        machines.update(await made_machines(fleet, made["metadata"]["uid"]))
        return len(machines) == 2 and all(m["metadata"]["uid"] in node.daemon.restored for m in machines.values())

    await fleet.eventually(both_begun, "both machines are restored")
    first, second = (machines[name]["metadata"]["uid"] for name in ("pair-1", "pair-2"))
    node.daemon.end_restore(first)
    await fleet.create("VMSnapshot", "later", {"virtualMachine": "pair-1"})
    await wait_phase(fleet, "VMSnapshot", "later", "Ready")
    again = await restore(fleet, "again", "later", "pair-1")

    async def put_back() -> bool:
        return node.daemon.restored[first].token == again["metadata"]["uid"]

    await fleet.eventually(put_back, "it is put back, although the other one is not made yet")
    node.daemon.end_restore(first)
    await wait_phase(fleet, "VMRestore", "again", "Succeeded")
    assert (await status(fleet, "VMRestore", "pair"))["phase"] == "Restoring"
    node.daemon.end_restore(second)
    assert (await wait_phase(fleet, "VMRestore", "pair", "Succeeded"))["done"] == "2/2"
    tokens = [told.restore.token for told in documents(node, first) if told.restore]
    turned = tokens.index(again["metadata"]["uid"])
    assert set(tokens[turned:]) == {again["metadata"]["uid"]}, "the first restore is not done again"


async def test_a_name_that_is_taken_is_named_and_nothing_is_made(fleet: Rig) -> None:
    await capture(fleet, "origin", "cold")
    await fleet.create_machine("taken-2")
    made = await restore_new(fleet, "taken", "cold", 3, memory=False)
    await wait_phase(fleet, "VMRestore", "taken", "Failed")
    assert "taken-2" in await wait_reason(fleet, "taken", "Failed")
    assert not await made_machines(fleet, made["metadata"]["uid"])


async def test_a_snapshot_that_is_restored_stays_until_that_has_ended(fleet: Rig) -> None:
    machine, node = await capture(fleet, "web-5", "held")
    node.daemon.restores_end = False
    await restore(fleet, "holds", "held", "web-5")
    await wait_phase(fleet, "VMRestore", "holds", "Restoring")
    await fleet.delete("VMSnapshot", "held")

    async def kept() -> bool:
        return (await fleet.condition("VMSnapshot", "held", "Ready")).get("reason") == "InUse"

    await fleet.eventually(kept, "the snapshot waits")

    async def begun() -> bool:
        return machine["metadata"]["uid"] in node.daemon.restored

    await fleet.eventually(begun, "the node has begun")
    node.daemon.end_restore(machine["metadata"]["uid"])
    await wait_phase(fleet, "VMRestore", "holds", "Succeeded")
    await fleet.wait_gone("VMSnapshot", "held")


async def test_an_operator_that_dies_between_two_machines_is_followed_and_makes_none_twice(fleet: Rig) -> None:
    count = 30
    await capture(fleet, "seed", "many", memory={"guest": "64Mi"})
    made = await restore_new(fleet, "many", "many", count)
    uid = made["metadata"]["uid"]

    async def some() -> bool:
        return len(await made_machines(fleet, uid)) > 1

    await fleet.eventually(some, "some machines are made")
    await fleet.kill_operator("one")
    before = await made_machines(fleet, uid)
    assert len(before) < count, "it died before it was done"
    await fleet.start_operator("one")
    said = await wait_phase(fleet, "VMRestore", "many", "Succeeded")
    assert said["done"] == f"{count}/{count}"
    for number in range(1, count + 1):
        await fleet.wait_word(f"many-{number}", "Running")
    after = await made_machines(fleet, uid)
    assert sorted(after) == sorted(f"many-{number}" for number in range(1, count + 1))
    assert all(after[name]["metadata"]["uid"] == found["metadata"]["uid"] for name, found in before.items())
    assert len({machine["status"]["nodeName"] for machine in after.values()}) == 1
