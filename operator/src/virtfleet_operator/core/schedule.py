"""What a VMSnapshotSchedule does and when: times, machines, names, and which snapshots go.

A time follows from the spec and a name from its time: a run that was cut off and begun anew makes nothing twice.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.names import SCHEDULE_LABEL
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_snapshot import SnapshotPhase, VMSnapshot, VMSnapshotSpec
from virtfleet_api.vm_snapshot_schedule import MissedRuns, Retention, VMSnapshotSchedule
from virtfleet_operator.core.cron import find_zone, last_time, next_time
from virtfleet_operator.core.placement.labels import selects
from virtfleet_operator.core.validate.vm_snapshot import volume_names

LATE: Final = timedelta(minutes=2)
"""A time that nobody acted on for longer was missed; another operator takes over sooner than that."""

SUSPENDED: Final = "Suspended"
"""Reason of the condition Ready while a schedule is suspended."""

FAILED_KEPT: Final = 3
"""Failed snapshots of a machine that stay until one succeeds: they hold nothing but why."""

_MAX_NAME: Final = 253
_MAX_LABEL: Final = 63
_DIGITS: Final = 16
_NEVER: Final = datetime(9000, 1, 1, tzinfo=UTC)  # an object of the API server always has a time
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Run:
    """A time that is to be acted on."""

    time: datetime
    captures: bool
    """False: it was missed, and is skipped."""


def due_run(schedule: VMSnapshotSchedule, now: datetime) -> Run | None:
    """Return the time that is due; of several that were missed, the last one. The spec must be valid.

    A time that passed before the spec said so, or while it was suspended, was nobody's and is skipped.
    """
    spec, status = schedule.spec, schedule.status
    since = status.last_schedule_time or schedule.metadata.creation_timestamp
    zone = find_zone(spec.time_zone)
    if spec.suspend or since is None or zone is None:
        return None
    time = last_time(spec.schedule, zone, since, now)
    if time is None:
        return None
    late = now - time > LATE
    return Run(time, not late or (spec.missed_runs is MissedRuns.RUN_ONCE and not _is_new(schedule)))


def coming_time(schedule: VMSnapshotSchedule, now: datetime) -> datetime | None:
    """Return the next time; None while it is suspended. The spec must be valid."""
    zone = find_zone(schedule.spec.time_zone)
    return None if schedule.spec.suspend or zone is None else next_time(schedule.spec.schedule, zone, now)


def _is_new(schedule: VMSnapshotSchedule) -> bool:
    """Tell whether the spec is another than at the last look, or was suspended then."""
    status = schedule.status
    if status.observed_generation not in (0, schedule.metadata.generation):
        return True
    return any(c.type == ConditionType.READY and c.reason == SUSPENDED for c in status.conditions)


def chosen_machines(schedule: VMSnapshotSchedule, machines: Iterable[VirtualMachine]) -> list[VirtualMachine]:
    """Return those of the namespace's machines that it captures; one that is being deleted is not."""
    spec = schedule.spec
    there = (vm for vm in machines if vm.metadata.deletion_timestamp is None)
    if spec.virtual_machine is not None:
        return [vm for vm in there if vm.metadata.name == spec.virtual_machine]
    if spec.selector is None:
        return []
    found = [vm for vm in there if selects(spec.selector, vm.metadata.labels)]
    return sorted(found, key=lambda vm: vm.metadata.name)


def snapshot_name(schedule: str, machine: str, time: datetime) -> str:
    """Return the name of the snapshot of a machine: with the time in UTC, cut where it would be too long."""
    stamp = f"-{time.astimezone(UTC):%Y%m%d%H%M}"
    return _bounded(f"{schedule}-{machine}", f"{schedule}/{machine}", _MAX_NAME - len(stamp)) + stamp


def schedule_label(schedule: str) -> str:
    """Return the value of SCHEDULE_LABEL: the schedule's name, cut where it is too long for a label."""
    return _bounded(schedule, schedule, _MAX_LABEL)


def snapshot_object(schedule: VMSnapshotSchedule, vm: VirtualMachine, time: datetime) -> dict[str, Any]:
    """Return the VMSnapshot of a machine at a time, as it is created; without its volumes of Kubernetes'."""
    machine = vm.metadata.name
    spec = VMSnapshotSpec(
        virtual_machine=machine,
        exclude_disks=volume_names(vm),
        mode=schedule.spec.mode,
        quiesce=schedule.spec.quiesce,
        deletion_policy=schedule.spec.deletion_policy,
    )
    name = snapshot_name(schedule.metadata.name, machine, time)
    labels = {SCHEDULE_LABEL: schedule_label(schedule.metadata.name)}
    return {
        "apiVersion": schedule.api_version,
        "kind": "VMSnapshot",
        "metadata": {"name": name, "namespace": schedule.metadata.namespace, "labels": labels},
        "spec": spec.to_json_dict(),
    }


def unfinished(snapshots: Iterable[VMSnapshot], machine: str) -> VMSnapshot | None:
    """Return a snapshot of the machine that an earlier time asked for and that is still to be captured."""
    waiting = (SnapshotPhase.PENDING, SnapshotPhase.CAPTURING)
    mine = (s for s in snapshots if s.spec.virtual_machine == machine and s.metadata.deletion_timestamp is None)
    return next((snapshot for snapshot in mine if snapshot.status.phase in waiting), None)


def failed_of(schedule: VMSnapshotSchedule, snapshots: Iterable[VMSnapshot], time: datetime | None) -> list[VMSnapshot]:
    """Return the snapshots of a time that failed."""
    if time is None:
        return []
    failed = [snapshot for snapshot in snapshots if snapshot.status.phase is SnapshotPhase.FAILED]
    name = schedule.metadata.name
    return [s for s in failed if s.metadata.name == snapshot_name(name, s.spec.virtual_machine, time)]


def expired(retention: Retention, snapshots: Iterable[VMSnapshot], now: datetime) -> list[VMSnapshot]:
    """Return the schedule's snapshots that go now.

    Of each machine the newest one that succeeded stays, and the newest that can be restored. One that failed goes
    once a later one has succeeded. What is not captured yet stays.
    """
    return [snapshot for group in _by_machine(snapshots) for snapshot in _expired(retention, group, now)]


def next_expiry(retention: Retention, snapshots: Iterable[VMSnapshot], now: datetime) -> datetime | None:
    """Return when the next snapshot gets too old."""
    duration = duration_of(retention)
    if duration is None:
        return None
    ends = (taken_at(snapshot) + duration for group in _by_machine(snapshots) for snapshot in _succeeded(group)[1:])
    return min((end for end in ends if end > now), default=None)


def duration_of(retention: Retention) -> timedelta | None:
    """Return how long snapshots are kept."""
    if retention.duration is None:
        return None
    return timedelta(**{_UNITS[retention.duration[-1]]: int(retention.duration[:-1])})


def taken_at(snapshot: VMSnapshot) -> datetime:
    """Return the instant that was captured, or when it was asked for."""
    return snapshot.status.creation_time or snapshot.metadata.creation_timestamp or _NEVER


def _by_machine(snapshots: Iterable[VMSnapshot]) -> Iterator[list[VMSnapshot]]:
    """Yield the snapshots of each machine, the newest first, without those that go already."""
    groups: defaultdict[str, list[VMSnapshot]] = defaultdict(list)
    for snapshot in snapshots:
        if snapshot.metadata.deletion_timestamp is None:
            groups[snapshot.spec.virtual_machine].append(snapshot)
    for group in groups.values():
        yield sorted(group, key=lambda snapshot: (taken_at(snapshot), snapshot.metadata.name), reverse=True)


def _succeeded(group: Sequence[VMSnapshot]) -> list[VMSnapshot]:
    return [snapshot for snapshot in group if snapshot.status.phase is SnapshotPhase.READY]


def _expired(retention: Retention, group: Sequence[VMSnapshot], now: datetime) -> Iterator[VMSnapshot]:
    ready = _succeeded(group)
    usable = next((snapshot for snapshot in ready if snapshot.status.ready_to_use), None)
    duration = duration_of(retention)
    for index, snapshot in enumerate(ready[1:], start=1):
        surplus = retention.keep is not None and index >= retention.keep
        old = duration is not None and taken_at(snapshot) + duration <= now
        if (surplus or old) and snapshot is not usable:
            yield snapshot
    failed = [snapshot for snapshot in group if snapshot.status.phase is SnapshotPhase.FAILED]
    for index, snapshot in enumerate(failed):
        if index >= FAILED_KEPT or (ready and taken_at(snapshot) < taken_at(ready[0])):
            yield snapshot


def _bounded(name: str, whole: str, limit: int) -> str:
    """Return a name of at most so many characters; one that is cut ends in a digest of the whole."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGITS]
    return f"{name[: limit - _DIGITS - 1].rstrip('-.')}-{digest}"
