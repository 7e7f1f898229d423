"""Restores, and disks that begin as those of a snapshot: what is refused, what a node is told, what is made."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtfleet_api.conditions import ConditionStatus
from virtfleet_api.machine import ExistingSource, Machine, SnapshotDiskSource
from virtfleet_api.names import RESTORE_LABEL
from virtfleet_api.report import RestoreReport
from virtfleet_api.virtual_machine import Clone, VirtualMachine
from virtfleet_api.vm_restore import RestoredMachine, RestorePhase, VMRestore, VMRestoreStatus
from virtfleet_api.vm_snapshot import SnapshotMode, VMSnapshot
from virtfleet_operator.core.admission import Review, review_write
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.disk_sizes import disk_sizes
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.events import restore_events
from virtfleet_operator.core.restores import before_object, machine_names, machine_object, unfinished_restores
from virtfleet_operator.core.summarise.vm_restore import (
    MachineView,
    RestoreFacts,
    restored_machine,
    summarise_restore,
)
from virtfleet_operator.core.validate.vm_restore import target_problems
from virtfleet_operator.core.verdict import Invalid, Waiting
from virtfleet_operator.core.writes import AT_ONCE, PROGRESS_INTERVAL, restore_write_due

UID = "bbbbbbbb-2222-3333-4444-555555555555"
SNAPSHOT_UID = "aaaaaaaa-2222-3333-4444-555555555555"
MACHINE_UID = "11111111-2222-3333-4444-555555555555"
AT = datetime(2026, 11, 23, 9, tzinfo=UTC)
FROM = {"name": "root", "source": {"snapshot": {"name": "warm", "disk": "root"}}}
SPEC = {
    "memory": {"guest": "1Gi"},
    "restartRequestedAt": "2026-11-20T09:00:00Z",
    "disks": [
        {"name": "root", "size": "8Gi", "pool": "fast", "source": {"image": {"name": "debian-12"}}, "bootOrder": 1},
        {"name": "scratch", "size": "1Gi", "source": {"blank": {}}},
        {"name": "cd", "bus": "cdrom", "source": {}},
    ],
    "networks": [
        {
            "name": "a",
            "switch": "lan",
            "macAddress": "52:54:00:00:00:01",
            "ipAddress": "10.0.0.9",
            "ipv6Address": "fd00::9",
        }
    ],
}
Make = Callable[..., VirtualMachine]


def snapshot(name: str = "warm", metadata: dict[str, Any] | None = None, **status: Any) -> VMSnapshot:
    held = {
        "phase": "Ready",
        "readyToUse": True,
        "nodeName": "node-1",
        "virtualMachineUID": MACHINE_UID,
        "virtualMachineSpec": SPEC,
        "disks": [{"name": "root", "pool": "fast", "capacity": "8Gi"}],
        "indications": ["Online", "Memory"],
    }
    meta = {"name": name, "namespace": "shop", "uid": SNAPSHOT_UID} | (metadata or {})
    return VMSnapshot.model_validate({"metadata": meta, "spec": {"virtualMachine": "web-1"}, "status": held | status})


def body(target: dict[str, Any] | None = None, name: str = "back", uid: str = UID, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop", "uid": uid, "generation": 1}
    return {
        "kind": "VMRestore",
        "metadata": meta,
        "spec": {"snapshot": "warm", "target": target or {"virtualMachine": "web-1"}, **spec},
    }


def restore(
    target: dict[str, Any] | None = None, phase: str = "Restoring", created: datetime = AT, **given: Any
) -> VMRestore:
    found = body(target, **given) | {"status": {"phase": phase}}
    found["metadata"]["creationTimestamp"] = created
    return VMRestore.model_validate(found)


def new(count: int = 2) -> dict[str, Any]:
    return {"newVirtualMachines": {"namePrefix": "build", "count": count}}


def said(review: Review) -> str:
    return review.refusal.message if review.refusal else ""


def compiled(vm: VirtualMachine, objects: Any) -> Machine | Waiting | Invalid:
    sizing = resolve(vm, None)
    assert isinstance(sizing, Sizing)
    return compile_machine(vm, sizing, objects, None)


# Disks of snapshots


def test_a_disk_begins_as_the_snapshots_until_it_is_there(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    disk = {**FROM, "pool": "fast"}
    document = compiled(machine(disks=[disk]), objects)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].source == SnapshotDiskSource(snapshot_uid=SNAPSHOT_UID, name="root")
    assert disk_sizes(machine(disks=[disk]), objects) == {"fast": 8 << 30}
    full = {**disk, "source": {**FROM["source"], "clone": "Full"}}  # type: ignore[dict-item]
    document = compiled(machine(disks=[full]), objects)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].source.clone is Clone.FULL  # type: ignore[union-attr]
    objects.snapshots = ()
    made = {"nodeName": "node-2", "disks": [{"name": "root", "pool": "fast", "target": "vda", "capacity": "8Gi"}]}
    document = compiled(machine(status=made, disks=[disk]), objects)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].source == ExistingSource()


@pytest.mark.parametrize(
    ("status", "metadata", "reason", "words"),
    [
        (None, None, "SnapshotNotFound", "is not there"),
        ({"phase": "Failed", "readyToUse": False}, None, "SnapshotNotFound", "failed"),
        ({}, {"deletionTimestamp": AT}, "SnapshotNotFound", "being deleted"),
        ({"phase": "Capturing", "readyToUse": False}, None, "SnapshotNotReady", "not Ready yet"),
        ({"readyToUse": False}, None, "SnapshotNotReady", "not Ready yet"),
    ],
)
def test_a_disk_waits_for_its_snapshot(
    machine: Make, objects: Any, status: dict[str, Any] | None, metadata: Any, reason: str, words: str
) -> None:
    objects.snapshots = () if status is None else (snapshot(metadata=metadata, **status),)
    found = compiled(machine(disks=[{**FROM, "pool": "fast"}]), objects)
    assert isinstance(found, Waiting)
    assert (found.reason, words in found.message) == (reason, True)


@pytest.mark.parametrize(
    ("disk", "sentence"),
    [
        (
            {"source": {"snapshot": {"name": "warm", "disk": "data"}}},
            "spec.disks[0].source.snapshot.disk: VMSnapshot 'warm' has no disk 'data': write one of root",
        ),
        (
            {"pool": "slow"},
            "spec.disks[0].pool: is 'slow', and the disk of VMSnapshot 'warm' is in pool 'fast': write \"fast\"",
        ),
        (
            {"size": "4Gi"},
            "spec.disks[0].size: '4Gi' is smaller than the disk of VMSnapshot 'warm': write \"8Gi\" or leave it out",
        ),
    ],
)
def test_a_disk_must_fit_its_snapshot(machine: Make, objects: Any, disk: dict[str, Any], sentence: str) -> None:
    objects.snapshots = (snapshot(),)
    vm = machine(disks=[{**FROM, "pool": "fast", **disk}])
    assert compiled(vm, objects) == Invalid((sentence,))
    wanted = {"kind": "VirtualMachine", "metadata": {"name": "n", "namespace": "shop"}, "spec": vm.spec.to_json_dict()}
    assert said(review_write(wanted, None, objects, AT)) == sentence


def test_snapshots_of_two_nodes_are_refused(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(), snapshot("other", nodeName="node-2"))
    other = {"name": "data", "pool": "fast", "source": {"snapshot": {"name": "other", "disk": "root"}}}
    found = compiled(machine(disks=[{**FROM, "pool": "fast"}, other]), objects)
    assert isinstance(found, Invalid)
    assert "node-1 and node-2" in found.message
    bound = compiled(machine(status={"nodeName": "node-2"}, disks=[{**FROM, "pool": "fast"}]), objects)
    assert isinstance(bound, Invalid)


# What is refused


def test_a_restore_of_what_fits_is_admitted(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    objects.sources = {("shop", "web-1"): machine()}
    assert review_write(body(), None, objects, AT) == Review()
    assert review_write(body(new()), None, objects, AT) == Review()


def test_a_restore_may_come_before_its_snapshot(objects: Any) -> None:
    review = review_write(body(), None, objects, AT)
    assert review.refusal is None
    assert "'warm'" in review.warnings[0]


@pytest.mark.parametrize(
    ("status", "metadata", "words"),
    [
        ({"phase": "Failed"}, None, "failed, and holds nothing"),
        ({}, {"deletionTimestamp": AT}, "is being deleted"),
    ],
)
def test_a_snapshot_that_holds_nothing_is_refused(objects: Any, status: Any, metadata: Any, words: str) -> None:
    objects.snapshots = (snapshot(metadata=metadata, **status),)
    assert words in said(review_write(body(), None, objects, AT))


def test_a_snapshot_is_of_one_machine(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    assert 'write "web-1"' in said(review_write(body({"virtualMachine": "web-2"}), None, objects, AT))
    objects.sources = {("shop", "web-1"): machine(metadata={"uid": UID})}
    assert "another than the one" in said(review_write(body(), None, objects, AT))
    objects.sources = {("shop", "web-1"): machine(metadata={"deletionTimestamp": AT})}
    assert "is being deleted" in said(review_write(body(), None, objects, AT))


def test_memory_does_not_come_back_to_a_machine_with_devices(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    objects.sources = {("shop", "web-1"): machine(hostDevices=[{"name": "nic", "device": "example.org/fast-nic"}])}
    assert said(review_write(body(), None, objects, AT)).startswith("spec.memory: VirtualMachine 'web-1' has device")
    assert review_write(body(memory=False), None, objects, AT).refusal is None
    objects.snapshots = (snapshot(indications=["Online", "CrashConsistent"]),)
    assert review_write(body(), None, objects, AT).refusal is None


def test_names_that_are_taken_are_refused_by_the_first(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    for number in (2, 3):
        name = f"build-{number}"
        objects.sources[("shop", name)] = machine(metadata={"name": name})
    assert "'build-2' is there already" in said(review_write(body(new(3)), None, objects, AT))
    mine = {"name": "build-1", "labels": {RESTORE_LABEL: UID}}
    objects.sources = {("shop", "build-1"): machine(metadata=mine)}
    assert target_problems(restore(new(3), "Pending"), snapshot(), objects) == ()


def test_a_machine_has_one_restore_at_a_time(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    objects.sources = {("shop", "web-1"): machine()}
    objects.unfinished = (restore(name="first", phase="Pending", uid=MACHINE_UID),)
    assert "VMRestore first of VirtualMachine 'web-1' has not ended" in said(review_write(body(), None, objects, AT))
    assert review_write(body(new()), None, objects, AT).refusal is None


def test_a_snapshot_before_needs_room_for_one_more(machine: Make, objects: Any) -> None:
    objects.snapshots = tuple(snapshot("warm" if n == 0 else f"s{n}") for n in range(32))
    objects.sources = {("shop", "web-1"): machine()}
    assert said(review_write(body(snapshotFirst=True), None, objects, AT)).startswith("spec.snapshotFirst: ")
    assert review_write(body(), None, objects, AT).refusal is None


def test_a_restore_cannot_change(objects: Any) -> None:
    assert said(review_write(body(memory=False), body(), objects, AT)).startswith("spec: cannot change")


def test_a_name_leaves_room_for_that_of_the_snapshot_before(objects: Any) -> None:
    assert said(review_write(body(name="a" * 247, snapshotFirst=True), None, objects, AT)).startswith("metadata.name: ")
    assert review_write(body(name="a" * 246, snapshotFirst=True), None, objects, AT).refusal is None


# What the node is told


def test_the_document_carries_the_restore_from_its_beginning_to_its_end(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    vm = machine()

    def told(*unfinished: VMRestore) -> Any:
        objects.unfinished = unfinished
        document = compiled(vm, objects)
        assert isinstance(document, Machine)
        return document.restore

    assert told() is None
    assert told(restore(phase="Pending")) is None
    assert told(restore({"virtualMachine": "web-2"})) is None
    found = told(restore(memory=False))
    assert (found.token, found.snapshot_uid, found.memory) == (UID, SNAPSHOT_UID, False)
    assert told(restore(phase="Pending", name="a", uid=MACHINE_UID), restore()).token == UID


def test_a_label_alone_makes_no_machine_one_of_a_restore(machine: Make, objects: Any) -> None:
    objects.snapshots, objects.unfinished = (snapshot(),), (restore(new()),)

    def told(name: str, uid: str) -> Any:
        document = compiled(machine(metadata={"name": name, "labels": {RESTORE_LABEL: uid}}), objects)
        assert isinstance(document, Machine)
        return document.restore

    assert told("build-2", UID).token == UID
    assert told("build-3", UID) is None
    assert told("build-2", MACHINE_UID) is None


def test_a_new_machine_that_is_done_is_not_restored_again_while_others_wait(machine: Make, objects: Any) -> None:
    vm = machine(metadata={"name": "build-1", "labels": {RESTORE_LABEL: UID}})
    objects.snapshots = (snapshot(),)

    def told(phase: str, *later: VMRestore) -> Any:
        made = [{"name": "build-1", "phase": phase}, {"name": "build-2", "phase": "Restoring"}]
        objects.unfinished = (with_machines(restore(new(2)), made), *later)
        document = compiled(vm, objects)
        assert isinstance(document, Machine)
        return document.restore

    later = restore({"virtualMachine": "build-1"}, name="later", uid=MACHINE_UID, created=AT + timedelta(minutes=1))
    assert told("Restoring", later).token == UID
    assert told("Succeeded", later).token == MACHINE_UID
    assert told("Succeeded") is None
    assert told("Failed") is None


def test_a_new_machine_is_put_back_only_once_it_is_made(machine: Make, objects: Any) -> None:
    objects.snapshots = (snapshot(),)
    objects.sources = {("shop", "web-1"): machine()}
    first = restore({"newVirtualMachines": {"namePrefix": "web", "count": 2}}, name="first", uid=MACHINE_UID)
    objects.unfinished = (with_machines(first, [{"name": "web-1", "phase": "Restoring"}]),)
    assert "VMRestore first of VirtualMachine 'web-1' has not ended" in said(review_write(body(), None, objects, AT))
    objects.unfinished = (with_machines(first, [{"name": "web-1", "phase": "Succeeded"}]),)
    assert review_write(body(), None, objects, AT).refusal is None


def with_machines(made: VMRestore, found: list[dict[str, Any]]) -> VMRestore:
    status = made.status.model_copy(update={"machines": tuple(map(RestoredMachine.model_validate, found))})
    return made.model_copy(update={"status": status})


def test_the_one_that_has_begun_goes_first_then_the_oldest() -> None:
    late = AT + timedelta(minutes=1)
    found = [
        restore(phase="Pending", name="old"),
        restore(phase="Pending", name="young", created=late),
        restore(name="begun", created=late),
        restore(phase="Failed", name="ended"),
    ]
    assert [r.metadata.name for r in unfinished_restores(found, "web-1")] == ["begun", "old", "young"]


# What is made


def test_a_new_machine_has_the_disks_of_the_snapshot_and_no_address() -> None:
    held = snapshot()
    spec = held.status.virtual_machine_spec
    assert spec
    made = machine_object(restore(new()), spec, held, "build-1")
    assert made["metadata"] == {"name": "build-1", "namespace": "shop", "labels": {RESTORE_LABEL: UID}}
    assert [disk["name"] for disk in made["spec"]["disks"]] == ["root", "cd"]
    root = made["spec"]["disks"][0]
    assert root["source"] == {"snapshot": {"name": "warm", "disk": "root"}}
    assert (root["pool"], root["bootOrder"], "size" in root) == ("fast", 1, False)
    assert made["spec"]["networks"][0].keys().isdisjoint({"macAddress", "ipAddress", "ipv6Address"})
    assert made["spec"]["networks"][0]["switch"] == "lan"
    assert "restartRequestedAt" not in made["spec"]
    again = {"kind": "VirtualMachine", **made, "metadata": made["metadata"] | {"uid": MACHINE_UID}}
    assert VirtualMachine.model_validate(again).spec.memory == spec.memory


def test_the_state_before_is_captured_as_the_snapshot_was_but_for_devices(machine: Make) -> None:
    held = snapshot()
    made = before_object(restore(), held, machine())
    assert made["metadata"]["name"] == "back-before"
    assert made["metadata"]["labels"] == {RESTORE_LABEL: UID}
    modes = (
        VMSnapshot.model_validate(before_object(restore(), held, vm)).spec.mode
        for vm in (machine(), machine(hostDevices=[{"name": "nic", "device": "example.org/fast-nic"}]))
    )
    assert list(modes) == [SnapshotMode.MEMORY, SnapshotMode.DISK]


def test_machines_are_named_by_number() -> None:
    assert machine_names(restore(new(3)).spec.target) == ("build-1", "build-2", "build-3")
    assert machine_names(restore().spec.target) == ("web-1",)


# What is said


def view(**given: Any) -> MachineView:
    seen: dict[str, Any] = {"there": True, "node_name": "node-1", "heard": True} | given
    return MachineView(**seen)


def report(**given: Any) -> RestoreReport:
    return RestoreReport.model_validate({"token": UID} | given)


@pytest.mark.parametrize(
    ("seen", "phase", "words"),
    [
        (view(), RestorePhase.RESTORING, "about to restore it"),
        (view(report=report(token=MACHINE_UID, done=True)), RestorePhase.RESTORING, "about to restore it"),
        (view(report=report(message="The disks are put back.")), RestorePhase.RESTORING, "The disks are put back."),
        (view(heard=False), RestorePhase.RESTORING, "does not answer"),
        (view(obstacle="no room"), RestorePhase.RESTORING, "no room"),
        (view(node_name=None), RestorePhase.RESTORING, "about to be placed"),
        (view(report=report(done=True, message="no space")), RestorePhase.FAILED, "Node node-1: no space"),
        (view(there=False), RestorePhase.FAILED, "was deleted"),
        (view(report=report(done=True, warm=True)), RestorePhase.SUCCEEDED, None),
        (view(report=report(done=True, warm=True, note="It kept its id.")), RestorePhase.SUCCEEDED, "It kept its id."),
    ],
)
def test_how_far_a_machine_is(seen: MachineView, phase: RestorePhase, words: str | None) -> None:
    found = restored_machine(RestoredMachine(name="web-1"), UID, seen)
    assert (found.phase, found.warm) == (phase, phase is RestorePhase.SUCCEEDED)
    assert found.message is None if words is None else words in (found.message or "")
    ended = found.phase in (RestorePhase.SUCCEEDED, RestorePhase.FAILED)
    assert (restored_machine(found, UID, view(there=False)) == found) is (ended)


def test_a_machine_that_shall_be_off_says_that_only_its_disks_are_restored() -> None:
    off = restored_machine(RestoredMachine(name="web-1"), UID, view(off=True, report=report(done=True)))
    assert off.phase is RestorePhase.SUCCEEDED
    assert status(machines=(off,)).conditions[0].message == (
        "VirtualMachine web-1 is restored from VMSnapshot 'warm'. "
        "The machine shall be off: its disks are restored, and it is not started."
    )
    cold = restored_machine(RestoredMachine(name="web-1"), UID, view(report=report(done=True)))
    assert (cold.phase, cold.message) == (RestorePhase.SUCCEEDED, None)


def machines(*phases: RestorePhase) -> tuple[RestoredMachine, ...]:
    return tuple(
        RestoredMachine(name=f"build-{number}", phase=phase, message="why" if phase is RestorePhase.FAILED else None)
        for number, phase in enumerate(phases, 1)
    )


def status(old: VMRestoreStatus | None = None, now: datetime = AT, **facts: Any) -> VMRestoreStatus:
    return summarise_restore(restore().metadata, old or VMRestoreStatus(), RestoreFacts("warm", **facts), now)


def test_a_status_from_beginning_to_end() -> None:
    ok, bad, on = RestorePhase.SUCCEEDED, RestorePhase.FAILED, RestorePhase.RESTORING
    waits = status(waiting=Waiting("SnapshotNotFound", "There is none."))
    assert (waits.phase, waits.done, waits.start_time) == (RestorePhase.PENDING, None, None)
    begun = status(waits, machines=machines(RestorePhase.PENDING, RestorePhase.PENDING), snapshot_before="b")
    assert (begun.phase, begun.done, begun.start_time, begun.completion_time) == (on, "0/2", AT, None)
    late = AT + timedelta(minutes=1)
    half = status(begun, late, machines=machines(ok, on))
    assert (half.phase, half.done, half.start_time, half.snapshot_before) == (on, "1/2", AT, "b")
    done = status(half, late, machines=machines(ok, ok))
    assert (done.phase, done.done, done.completion_time) == (ok, "2/2", late)
    assert done.conditions[0].status is ConditionStatus.TRUE
    failed = status(half, late, machines=machines(ok, bad))
    assert (failed.phase, failed.done, failed.completion_time) == (bad, "1/2", late)
    assert failed.conditions[0].message == "VirtualMachine build-2: why"
    ended = status(waits, failure=Waiting("Failed", "No."))
    assert (ended.phase, ended.start_time, ended.completion_time) == (bad, None, AT)
    told = [[e.reason for e in restore_events(a, b)] for a, b in ((waits, begun), (begun, half), (half, done))]
    assert told == [["Restoring"], [], ["Restored"]]
    assert [(e.type, e.reason) for e in restore_events(half, failed)] == [("Warning", "Failed")]


def test_how_far_machines_are_is_written_at_intervals() -> None:
    begun = status(machines=machines(RestorePhase.RESTORING, RestorePhase.RESTORING))
    half = status(begun, machines=machines(RestorePhase.SUCCEEDED, RestorePhase.RESTORING))
    done = status(begun, machines=machines(RestorePhase.SUCCEEDED, RestorePhase.SUCCEEDED))
    assert restore_write_due(begun, begun, AT) is None
    assert restore_write_due(begun, half, AT) == AT + PROGRESS_INTERVAL
    assert restore_write_due(begun, half, None) == AT_ONCE
    assert restore_write_due(begun, done, AT) == AT_ONCE
