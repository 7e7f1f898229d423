"""What is said of snapshots and schedules: at admission, and in their status."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtfleet_api.conditions import ConditionStatus
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.snapshot import SnapshotDiskReport, SnapshotReport
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_snapshot import SnapshotPhase, VMSnapshot, VMSnapshotStatus
from virtfleet_api.vm_snapshot_schedule import VMSnapshotSchedule, VMSnapshotScheduleStatus
from virtfleet_operator.core.admission import Review, review_deletion, review_write
from virtfleet_operator.core.cron import find_zone, last_time, next_time
from virtfleet_operator.core.events import schedule_events, snapshot_events
from virtfleet_operator.core.schedule import due_run
from virtfleet_operator.core.summarise.vm_snapshot import SnapshotFacts, Told, summarise_snapshot
from virtfleet_operator.core.summarise.vm_snapshot_schedule import ScheduleFacts, summarise_schedule
from virtfleet_operator.core.verdict import Waiting
from virtfleet_operator.core.writes import AT_ONCE, snapshot_write_due

UID = "aaaaaaaa-2222-3333-4444-555555555555"
MACHINE_UID = "11111111-2222-3333-4444-555555555555"
AT = datetime(2026, 11, 23, 9, tzinfo=UTC)
MIB = 1 << 20
DISKS = [
    {"name": "root", "size": "1Gi", "source": {"blank": {}}},
    {"name": "data", "size": "1Gi", "source": {"blank": {}}},
    {"name": "cd", "bus": "cdrom", "source": {}},
]
Make = Callable[..., VirtualMachine]


def body(old: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    meta = {"name": "before-upgrade", "namespace": "shop", "uid": UID, "generation": 1}
    return {"kind": "VMSnapshot", "metadata": meta, "spec": {"virtualMachine": "web-1", **(old or {}), **spec}}


def snapshot(name: str = "s", **status: Any) -> VMSnapshot:
    made = body()
    return VMSnapshot.model_validate({**made, "metadata": {**made["metadata"], "name": name}, "status": status})


def refusal(review: Review) -> str:
    assert review.refusal
    return review.refusal.message


def test_a_snapshot_of_a_machine_to_come_passes_with_a_hint(objects: Any, now: datetime) -> None:
    review = review_write(body(), None, objects, now)
    assert review.refusal is None
    assert review.warnings == (
        "spec.virtualMachine: there is no VirtualMachine 'web-1' yet: it is captured once it is there",
    )


def test_a_good_snapshot_passes(objects: Any, machine: Make, now: datetime) -> None:
    objects.sources["shop", "web-1"] = machine(disks=DISKS)
    assert review_write(body(excludeDisks=["data"]), None, objects, now) == Review()


@pytest.mark.parametrize(
    ("spec", "disks", "says"),
    [
        (
            {"excludeDisks": ["logs"]},
            DISKS,
            "spec.excludeDisks[0]: 'logs' is no disk of VirtualMachine 'web-1': write one of root, data, or remove it",
        ),
        (
            {"excludeDisks": ["cd"]},
            DISKS,
            "spec.excludeDisks[0]: 'cd' is no disk of VirtualMachine 'web-1': write one of root, data, or remove it",
        ),
        ({"excludeDisks": ["root", "data"]}, DISKS, "spec.excludeDisks: leaves out every disk: remove one of them"),
        (
            {},
            DISKS[2:],
            "spec.virtualMachine: VirtualMachine 'web-1' has no disk that could hold a snapshot: add one",
        ),
    ],
)
def test_what_does_not_fit_the_machine_is_refused(
    spec: dict[str, Any], disks: Any, says: str, objects: Any, machine: Make, now: datetime
) -> None:
    objects.sources["shop", "web-1"] = machine(disks=disks)
    assert refusal(review_write(body(**spec), None, objects, now)) == says


@pytest.mark.parametrize("devices", ["gpus", "hostDevices"])
def test_memory_of_a_machine_with_devices_is_refused_and_its_disks_are_not(
    devices: str, objects: Any, machine: Make, now: datetime
) -> None:
    objects.sources["shop", "web-1"] = machine(disks=DISKS, **{devices: [{"name": "gpu0", "device": "nvidia.com/A10"}]})
    assert refusal(review_write(body(), None, objects, now)) == (
        "spec.mode: VirtualMachine 'web-1' has device 'gpu0', which cannot be captured with memory: write mode: Disk"
    )
    assert review_write(body(mode="Disk"), None, objects, now) == Review()


def test_a_machine_that_is_being_deleted_is_refused(objects: Any, machine: Make, now: datetime) -> None:
    objects.sources["shop", "web-1"] = machine(disks=DISKS, metadata={"deletionTimestamp": now})
    assert "'web-1' is being deleted: write" in refusal(review_write(body(), None, objects, now))


def test_a_machine_has_so_many_snapshots_and_failed_ones_do_not_count(
    objects: Any, machine: Make, now: datetime
) -> None:
    objects.sources["shop", "web-1"] = machine(disks=DISKS)
    held = [snapshot(f"s-{number}", phase="Ready") for number in range(31)]
    objects.snapshots = (*held, snapshot("f", phase="Failed"))
    assert review_write(body(), None, objects, now) == Review()
    objects.snapshots = (*held, snapshot("p", phase="Pending"))
    assert refusal(review_write(body(), None, objects, now)) == (
        "spec.virtualMachine: VirtualMachine 'web-1' has 32 snapshots, and a machine has 32 at most: "
        "delete one of them first"
    )


def test_a_spec_stays_but_for_what_becomes_of_it(objects: Any, now: datetime) -> None:
    assert refusal(review_write(body(mode="Disk"), body(), objects, now)) == (
        "spec: cannot change, but for deletionPolicy: write what it was, or make another VMSnapshot"
    )
    assert review_write(body(deletionPolicy="Retain"), body(), objects, now) == Review()


def test_deleting_one_that_is_being_restored_is_refused(objects: Any) -> None:
    assert review_deletion(body(), objects) == Review()
    objects.restores = ("back", "copies")
    assert refusal(review_deletion(body(), objects)) == (
        "VMSnapshot before-upgrade is being restored by VMRestore back and 1 more: "
        "wait until it has ended, or delete it first"
    )


def meta(**more: Any) -> ObjectMeta:
    return ObjectMeta.model_validate({"name": "s", "namespace": "shop", "uid": UID, "generation": 1, **more})


def report(phase: SnapshotPhase = SnapshotPhase.READY, **more: Any) -> SnapshotReport:
    disk = SnapshotDiskReport(name="root", pool="default", capacity_bytes=1 << 30, size_bytes=3 * MIB)
    facts = {"memory_bytes": 64 * MIB, "disks": (disk,), "created_at": AT.replace(tzinfo=None), "uid": UID}
    return SnapshotReport(namespace="shop", name="s", machine_uid=MACHINE_UID, phase=phase, **{**facts, **more})


@pytest.fixture
def told(machine: Make, now: datetime) -> VMSnapshotStatus:
    facts = SnapshotFacts(told=Told("node-a", MACHINE_UID, machine(disks=DISKS).spec))
    return summarise_snapshot(meta(), VMSnapshotStatus(), facts, now)


def reason(status: VMSnapshotStatus | VMSnapshotScheduleStatus) -> str:
    return status.conditions[0].reason


def test_the_machine_is_written_down_before_the_node_is_told(told: VMSnapshotStatus, machine: Make) -> None:
    assert (told.phase, told.node_name, told.virtual_machine_uid) == (SnapshotPhase.PENDING, "node-a", MACHINE_UID)
    assert told.virtual_machine_spec == machine(disks=DISKS).spec


def test_a_captured_one_says_what_it_holds_and_goes_on_saying_it(told: VMSnapshotStatus, now: datetime) -> None:
    ready = summarise_snapshot(meta(), told, SnapshotFacts(report=report(), parent="older"), now)
    assert (ready.phase, ready.ready_to_use, ready.parent) == (SnapshotPhase.READY, True, "older")
    assert (ready.memory_size, ready.size, ready.disks[0].size) == (64 * MIB, 67 * MIB, 3 * MIB)
    assert ready.creation_time == AT, "a time without a zone is taken for UTC"
    assert ready.virtual_machine_spec == told.virtual_machine_spec
    away = summarise_snapshot(meta(), ready, SnapshotFacts(heard=False), now)
    assert (away.phase, away.ready_to_use, away.size) == (SnapshotPhase.READY, True, ready.size)
    assert (away.conditions[0].status, reason(away)) == (ConditionStatus.UNKNOWN, "NodeNotHeard")
    missing = summarise_snapshot(meta(), ready, SnapshotFacts(), now)
    assert (missing.phase, missing.ready_to_use, reason(missing)) == (SnapshotPhase.READY, False, "NotFound")
    left = summarise_snapshot(meta(), ready, SnapshotFacts(heard=False, left=True), now)
    assert (left.phase, left.ready_to_use, reason(left)) == (SnapshotPhase.READY, False, "NodeGone")
    alone = summarise_snapshot(meta(), ready, SnapshotFacts(report=report(), machine_gone=True), now)
    assert (alone.conditions[0].status, reason(alone)) == (ConditionStatus.TRUE, "MachineGone")


def test_progress_shows_while_it_is_captured_alone(told: VMSnapshotStatus, now: datetime) -> None:
    half = report(SnapshotPhase.CAPTURING, progress_percent=42)
    capturing = summarise_snapshot(meta(), told, SnapshotFacts(report=half), now)
    assert (capturing.progress, reason(capturing)) == ("42%", "Capturing")
    more = summarise_snapshot(
        meta(), capturing, SnapshotFacts(report=half.model_copy(update={"progress_percent": 43})), now
    )
    assert snapshot_write_due(capturing, capturing, now) is None
    assert snapshot_write_due(capturing, more, now) == now + timedelta(seconds=2)
    ready = summarise_snapshot(meta(), more, SnapshotFacts(report=report()), now)
    assert ready.progress is None
    assert snapshot_write_due(more, ready, now) == AT_ONCE


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (SnapshotFacts(report=report(SnapshotPhase.FAILED, reason="NoSpace", message="the pool\nis full")), "NoSpace"),
        (SnapshotFacts(report=report(SnapshotPhase.FAILED, reason="no word", message="")), "CaptureFailed"),
        (SnapshotFacts(heard=False, left=True), "NodeGone"),
        (SnapshotFacts(machine_gone=True), "MachineGone"),
    ],
)
def test_a_failure_says_why_for_ever(
    facts: SnapshotFacts, expected: str, told: VMSnapshotStatus, now: datetime
) -> None:
    failed = summarise_snapshot(meta(), told, facts, now)
    assert (failed.phase, failed.ready_to_use, reason(failed)) == (SnapshotPhase.FAILED, False, expected)
    assert "\n" not in failed.conditions[0].message
    later = summarise_snapshot(meta(), failed, SnapshotFacts(), now)
    assert later == failed


def test_what_it_waits_for_is_said_and_a_silent_node_comes_first(told: VMSnapshotStatus, now: datetime) -> None:
    waits = SnapshotFacts(waiting=Waiting("MachineNotFound", "There is no VirtualMachine."))
    pending = summarise_snapshot(meta(), VMSnapshotStatus(), waits, now)
    assert (pending.phase, reason(pending)) == (SnapshotPhase.PENDING, "MachineNotFound")
    assert (
        reason(summarise_snapshot(meta(), told, SnapshotFacts(heard=False, machine_gone=True), now)) == "NodeNotHeard"
    )
    going = summarise_snapshot(meta(deletionTimestamp=now), told, SnapshotFacts(), now)
    assert (going.phase, reason(going)) == (SnapshotPhase.DELETING, "Terminating")


def test_events_tell_of_the_capture_and_of_its_failure_once(told: VMSnapshotStatus, now: datetime) -> None:
    ready = summarise_snapshot(meta(), told, SnapshotFacts(report=report(pause_milliseconds=9)), now)
    failed = summarise_snapshot(meta(), told, SnapshotFacts(report=report(SnapshotPhase.FAILED)), now)
    assert [(e.type, e.reason) for e in snapshot_events(told, ready)] == [("Normal", "Captured")]
    assert "9 ms" in snapshot_events(told, ready)[0].message
    assert [(e.type, e.reason) for e in snapshot_events(told, failed)] == [("Warning", "Failed")]
    assert not snapshot_events(ready, ready)


def schedule(status: dict[str, Any] | None = None, generation: int = 1, **spec: Any) -> VMSnapshotSchedule:
    known = {"schedule": "0 2 * * *", "virtualMachine": "web-1", **spec}
    described = {"name": "nightly", "namespace": "shop", "generation": generation}
    described["creationTimestamp"] = "2026-01-01T00:00:00Z"
    return VMSnapshotSchedule.model_validate({"metadata": described, "spec": known, "status": status or {}})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("expression", "after", "following"),
    [
        ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),  # 02:30 is skipped: 03:00 comes instead
        ("30 2 * * *", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
        ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),  # 02:30 is there twice: the first counts
        ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ("5,50 2 * * *", "2026-10-25T01:10:00Z", "2026-10-26T01:05:00Z"),  # asked within the hour that is repeated
        ("*/30 * * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"),  # what runs all the time runs on
    ],
)
def test_a_change_of_the_clock_neither_repeats_nor_loses_a_time(expression: str, after: str, following: str) -> None:
    berlin = find_zone("Europe/Berlin")
    assert berlin
    assert next_time(expression, berlin, at(after)) == at(following)


def test_a_long_absence_ends_with_the_last_time_at_once() -> None:
    assert last_time("* * * * *", UTC, at("2020-01-01T00:00:00Z"), at("2026-11-23T10:00:30Z")) == at(
        "2026-11-23T10:00Z"
    )
    assert last_time("0 0 29 2 *", UTC, at("2020-03-01T00:00:00Z"), at("2026-11-23T10:00Z")) == at("2024-02-29T00:00Z")


@pytest.mark.parametrize(
    ("status", "missed", "captures"),
    [
        ({"observedGeneration": 1}, "RunOnce", True),
        ({"observedGeneration": 1}, "Skip", False),
        ({"observedGeneration": 7}, "RunOnce", False),  # the spec has changed: those times were another's
    ],
)
def test_times_of_another_spec_are_not_made_up_for(
    status: dict[str, Any],
    missed: str,
    captures: bool,  # noqa: FBT001
) -> None:
    run = due_run(schedule(status, missedRuns=missed), at("2026-11-23T10:00:00Z"))
    assert run
    assert (run.time, run.captures) == (at("2026-11-23T02:00:00Z"), captures)


def test_a_schedule_says_why_nothing_was_captured_until_the_next_time(now: datetime) -> None:
    described, before = meta(), VMSnapshotScheduleStatus()
    refused = ScheduleFacts(machines=1, last_time=now, refused=("web-1: no disk",))
    told = summarise_schedule(described, before, refused, now)
    assert (reason(told), told.conditions[0].message) == ("NotCaptured", "web-1: no disk")
    later = summarise_schedule(described, told, ScheduleFacts(machines=1, last_time=now), now)
    assert later == told
    good = summarise_schedule(described, later, ScheduleFacts(machines=1, last_time=now, refused=()), now)
    assert reason(good) == "Ready"
    events = schedule_events(before, told, captured=0)
    assert [(e.type, e.reason) for e in events] == [("Normal", "Scheduled"), ("Warning", "NotCaptured")]
    assert not schedule_events(told, later, captured=None)
    assert [e.reason for e in schedule_events(before, good, captured=None)] == ["Missed"]
