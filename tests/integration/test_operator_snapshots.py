"""Snapshots from object to node and back: a real API server and operator, simulated nodes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SPACE, Rig
from simulated_node import SimulatedNode
from virtfleet_api.image import Image, SnapshotOrigin
from virtfleet_api.names import SNAPSHOT_FINALIZER
from virtfleet_api.vm_image import ImagePhase
from virtfleet_api.vm_snapshot import MAX_SNAPSHOTS, SnapshotMode, SnapshotPhase
from virtfleet_operator.kube.paths import OUR_PATHS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = {"name": "root", "size": "1Gi", "source": {"blank": {}}}
DATA = {"name": "data", "size": "2Gi", "source": {"blank": {}}}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave nothing to the next test."""
    yield
    for node in fleet.nodes.values():
        node.daemon.snapshots.phase, node.daemon.snapshots.keeps = SnapshotPhase.READY, False
        node.daemon.image_phase = ImagePhase.READY
    await fleet.clear("VMSnapshot", "VirtualMachine", "VMImage")


async def run_machine(fleet: Rig, name: str, *disks: dict[str, Any]) -> tuple[dict[str, Any], SimulatedNode]:
    """Create a machine and wait until it runs; return it with its node."""
    await fleet.create_machine(name, disks=[*disks] or [ROOT])
    await fleet.wait_word(name, "Running")
    made = await fleet.get("VirtualMachine", name)
    assert made
    return made, fleet.nodes[made["status"]["nodeName"]]


async def status(fleet: Rig, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await fleet.get("VMSnapshot", name) or {}).get("status", {})
    return found


async def wait_phase(fleet: Rig, name: str, phase: str) -> dict[str, Any]:
    async def so() -> bool:
        return (await status(fleet, name)).get("phase") == phase

    await fleet.eventually(so, f"{name} is {phase}")
    return await status(fleet, name)


async def wait_reason(fleet: Rig, name: str, reason: str) -> dict[str, Any]:
    async def so() -> bool:
        return (await fleet.condition("VMSnapshot", name, "Ready")).get("reason") == reason

    await fleet.eventually(so, f"{name} says {reason}")
    return await fleet.condition("VMSnapshot", name, "Ready")


async def reasons_of_events(fleet: Rig, uid: str) -> set[str]:
    found = await fleet.client.get(f"/api/v1/namespaces/{SPACE}/events")
    return {event["reason"] for event in found["items"] if event["involvedObject"].get("uid") == uid}


async def drop(fleet: Rig, kind: str, name: str) -> None:
    await fleet.delete(kind, name)
    await fleet.wait_gone(kind, name)


async def test_a_snapshot_is_captured_and_says_what_it_holds(fleet: Rig) -> None:
    machine, node = await run_machine(fleet, "web-1", ROOT, DATA)
    first = await fleet.create("VMSnapshot", "first", {"virtualMachine": "web-1", "excludeDisks": ["data"]})
    said = await wait_phase(fleet, "first", "Ready")
    assert said["readyToUse"] is True
    assert said["nodeName"] == node.name
    assert said["virtualMachineUID"] == machine["metadata"]["uid"]
    assert [disk["name"] for disk in said["virtualMachineSpec"]["disks"]] == ["root", "data"]
    assert [(disk["name"], disk["capacity"]) for disk in said["disks"]] == [("root", "1Gi")]
    assert (said["memorySize"], said["size"]) == ("64Mi", "65Mi")
    assert said["pauseMilliseconds"] == 7
    assert said["indications"] == ["Online", "Memory"]
    assert "parent" not in said
    stored = await fleet.get("VMSnapshot", "first")
    assert stored
    assert stored["metadata"]["finalizers"] == [SNAPSHOT_FINALIZER]
    await fleet.create("VMSnapshot", "second", {"virtualMachine": "web-1", "mode": "Disk"})
    assert (await wait_phase(fleet, "second", "Ready"))["parent"] == "first"
    assert [told.mode for told in node.daemon.snapshots.told[-2:]] == [SnapshotMode.MEMORY, SnapshotMode.DISK]

    async def told() -> bool:
        return "Captured" in await reasons_of_events(fleet, first["metadata"]["uid"])

    await fleet.eventually(told, "the capture is an event")
    await drop(fleet, "VMSnapshot", "second")
    await drop(fleet, "VMSnapshot", "first")
    assert not node.daemon.snapshots.reports


async def test_it_waits_for_its_machine_and_keeps_the_spec_of_the_capture(fleet: Rig) -> None:
    await fleet.create("VMSnapshot", "early", {"virtualMachine": "late"})
    assert "late" in (await wait_reason(fleet, "early", "MachineNotFound"))["message"]
    await run_machine(fleet, "late")
    before = (await wait_phase(fleet, "early", "Ready"))["virtualMachineSpec"]
    await fleet.patch("VirtualMachine", "late", {"spec": {"memory": {"guest": "768Mi"}}})
    await fleet.patch("VMSnapshot", "early", {"metadata": {"labels": {"seen": "again"}}})
    assert (await status(fleet, "early"))["virtualMachineSpec"] == before


async def test_progress_is_shown_and_a_failure_says_why(fleet: Rig) -> None:
    _, node = await run_machine(fleet, "slow")
    node.daemon.snapshots.phase = SnapshotPhase.CAPTURING
    made = await fleet.create("VMSnapshot", "halfway", {"virtualMachine": "slow"})
    assert (await wait_phase(fleet, "halfway", "Capturing"))["progress"] == "42%"
    uid = made["metadata"]["uid"]
    node.daemon.snapshots.end(uid, SnapshotPhase.FAILED, node.daemon.journal, "the pool is full")
    said = await wait_phase(fleet, "halfway", "Failed")
    assert said["readyToUse"] is False
    assert "the pool is full" in (await fleet.condition("VMSnapshot", "halfway", "Ready"))["message"]

    async def told() -> bool:
        return "Failed" in await reasons_of_events(fleet, uid)

    await fleet.eventually(told, "the failure is an event")


async def test_a_machine_takes_its_snapshots_along_but_for_those_to_retain(fleet: Rig) -> None:
    _, node = await run_machine(fleet, "ends")
    await fleet.create("VMSnapshot", "goes", {"virtualMachine": "ends"})
    await fleet.create("VMSnapshot", "stays", {"virtualMachine": "ends", "deletionPolicy": "Retain"})
    for name in ("goes", "stays"):
        await wait_phase(fleet, name, "Ready")
    await drop(fleet, "VirtualMachine", "ends")
    await fleet.wait_gone("VMSnapshot", "goes")
    assert "gone" in (await wait_reason(fleet, "stays", "MachineGone"))["message"]
    said = await status(fleet, "stays")
    assert (said["phase"], said["readyToUse"]) == ("Ready", True)
    assert len(node.daemon.snapshots.reports) == 1
    await run_machine(fleet, "ends")  # another of the same name
    await fleet.patch("VMSnapshot", "stays", {"spec": {"deletionPolicy": "Delete"}})
    await fleet.wait_gone("VMSnapshot", "stays")


async def test_a_node_that_is_away_is_waited_for_and_one_that_left_is_not(fleet: Rig) -> None:
    node = await fleet.add_node("node-c")
    await fleet.create_machine("far", disks=[ROOT], nodeSelector={"kubernetes.io/hostname": "node-c"})
    await fleet.wait_word("far", "Running")
    for name in ("kept", "removed", "left"):
        await fleet.create("VMSnapshot", name, {"virtualMachine": "far", "deletionPolicy": "Retain"})
        await wait_phase(fleet, name, "Ready")
    await node.stop()
    await wait_reason(fleet, "kept", "NodeNotHeard")
    await fleet.delete("VMSnapshot", "removed")
    await wait_reason(fleet, "removed", "NodeNotHeard")
    told = len(node.daemon.snapshots.told)
    await node.start()
    await fleet.wait_gone("VMSnapshot", "removed")
    await wait_reason(fleet, "kept", "Ready")
    assert {wanted.present for wanted in node.daemon.snapshots.told[told:]} == {False}, "nothing is captured again"
    await node.stop()
    await drop(fleet, "VMNode", "node-c")
    await wait_reason(fleet, "kept", "NodeGone")
    assert (await status(fleet, "kept"))["readyToUse"] is False
    await drop(fleet, "VMSnapshot", "kept")
    await drop(fleet, "VMSnapshot", "left")


async def test_a_removal_that_takes_its_time_is_shown_and_survives_the_operator(fleet: Rig) -> None:
    _, node = await run_machine(fleet, "long")
    made = await fleet.create("VMSnapshot", "tough", {"virtualMachine": "long"})
    await wait_phase(fleet, "tough", "Ready")
    node.daemon.snapshots.keeps = True
    await fleet.delete("VMSnapshot", "tough")
    await wait_phase(fleet, "tough", "Deleting")
    await fleet.kill_operator("one")
    await fleet.start_operator()
    uid = made["metadata"]["uid"]
    del node.daemon.snapshots.reports[uid]
    node.daemon.journal.remove_snapshot(uid)
    await fleet.wait_gone("VMSnapshot", "tough")


async def test_an_operator_that_is_killed_captures_nothing_twice(fleet: Rig) -> None:
    _, node = await run_machine(fleet, "once")
    names = [f"at-{number}" for number in range(5)]
    for name in names:
        await fleet.create("VMSnapshot", name, {"virtualMachine": "once"})
    await fleet.kill_operator("one")
    await fleet.start_operator()
    for name in names:
        await wait_phase(fleet, name, "Ready")
    uids = {(await fleet.get("VMSnapshot", name) or {})["metadata"]["uid"] for name in names}
    assert {report.uid for report in node.daemon.snapshots.reports.values()} == uids


async def test_what_cannot_be_captured_is_said_of_a_stored_object(fleet: Rig) -> None:
    await run_machine(fleet, "plain")
    await fleet.create("VMSnapshot", "wrong", {"virtualMachine": "plain", "excludeDisks": ["logs"]})
    said = (await wait_reason(fleet, "wrong", "Invalid"))["message"]
    assert said == "spec.excludeDisks[0]: 'logs' is no disk of VirtualMachine 'plain': write one of root, or remove it"
    assert (await status(fleet, "wrong"))["phase"] == "Pending"


async def test_one_too_many_waits_until_another_is_gone(fleet: Rig) -> None:
    await run_machine(fleet, "full")
    names = [f"full-{number}" for number in range(MAX_SNAPSHOTS)]
    for name in names:
        await fleet.create("VMSnapshot", name, {"virtualMachine": "full", "mode": "Disk"})
    for name in names:
        await wait_phase(fleet, name, "Ready")
    await fleet.create("VMSnapshot", "extra", {"virtualMachine": "full", "mode": "Disk"})
    assert "32 at most: delete one" in (await wait_reason(fleet, "extra", "Invalid"))["message"]
    await drop(fleet, "VMSnapshot", names[5])
    await wait_phase(fleet, "extra", "Ready")


async def test_one_that_waits_goes_with_the_machine_that_it_waits_for(fleet: Rig) -> None:
    await fleet.create_machine("nowhere", disks=[ROOT], nodeSelector={"kubernetes.io/hostname": "no-such-node"})
    await fleet.patch("VirtualMachine", "nowhere", {"metadata": {"finalizers": ["example.org/slow"]}})
    await fleet.create("VMSnapshot", "waits", {"virtualMachine": "nowhere"})
    await wait_reason(fleet, "waits", "NotScheduled")
    await fleet.delete("VirtualMachine", "nowhere")
    await fleet.wait_gone("VMSnapshot", "waits")
    await fleet.patch("VirtualMachine", "nowhere", {"metadata": {"finalizers": None}})


async def test_a_snapshot_that_is_being_restored_stays_until_that_has_ended(fleet: Rig) -> None:
    await run_machine(fleet, "back")
    await fleet.create("VMSnapshot", "wanted", {"virtualMachine": "back"})
    await wait_phase(fleet, "wanted", "Ready")
    other = {"snapshot": "wanted", "target": {"newVirtualMachines": {"namePrefix": "copy"}}}
    await fleet.create("VMRestore", "again", other)
    await fleet.delete("VMSnapshot", "wanted")
    assert "again" in (await wait_reason(fleet, "wanted", "InUse"))["message"]
    path = OUR_PATHS["VMRestore"].object(SPACE, "again")
    await fleet.client.delete(path)
    await fleet.wait_gone("VMSnapshot", "wanted")


async def test_a_snapshot_stays_until_the_image_is_made_that_its_node_copies(fleet: Rig) -> None:
    _, node = await run_machine(fleet, "web-9", ROOT)
    await fleet.create("VMImage", "golden", {"source": {"snapshot": {"name": "source", "disk": "root"}}})

    async def waits() -> bool:
        return (await fleet.condition("VMImage", "golden", "Ready")).get("reason") == "SnapshotNotFound"

    await fleet.eventually(waits, "the image says what it waits for")
    for other in fleet.nodes.values():
        other.daemon.image_phase = ImagePhase.IMPORTING
    made = await fleet.create("VMSnapshot", "source", {"virtualMachine": "web-9"})

    async def told() -> bool:
        return any(isinstance(one, Image) and one.name == "golden" for one in node.daemon.instructions)

    await fleet.eventually(told, "the snapshot's node is told of the image")
    document = [one for one in node.daemon.instructions if isinstance(one, Image)][-1]
    origin = SnapshotOrigin(snapshot="source", name="root", snapshot_uid=made["metadata"]["uid"])
    assert document.snapshot == origin
    await fleet.delete("VMSnapshot", "source")
    said = await wait_reason(fleet, "source", "InUse")
    assert said["message"] == "It is removed once VMImage golden is made, or deleted."
    node.daemon.image_phase = ImagePhase.READY
    await node.daemon.put_image(document)
    await fleet.wait_gone("VMSnapshot", "source")
    assert await fleet.is_ready("VMImage", "golden")
