"""What is worth an Event: a change from one written status to the next, never a state by itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from virtfleet_api.conditions import Condition, ConditionStatus, ConditionType
from virtfleet_api.virtual_machine_status import PrintableStatus, VirtualMachineStatus
from virtfleet_api.vm_image import ImagePhase, VMImageStatus
from virtfleet_api.vm_node import VMNodeStatus
from virtfleet_api.vm_restore import RestorePhase, VMRestoreStatus
from virtfleet_api.vm_snapshot import SnapshotPhase, VMSnapshotStatus
from virtfleet_api.vm_snapshot_schedule import VMSnapshotScheduleStatus

_WARNINGS: Final = frozenset(
    {PrintableStatus.INVALID, PrintableStatus.UNSCHEDULABLE, PrintableStatus.CRASHED, PrintableStatus.UNKNOWN}
)
_MAINTENANCE: Final = "Maintenance"
_MAX_MESSAGE: Final = 1024  # what the Event API takes


@dataclass(frozen=True, slots=True)
class EventText:
    """An Event without its object and time."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def machine_events(old: VirtualMachineStatus, new: VirtualMachineStatus) -> tuple[EventText, ...]:
    """Return the Events of a machine's change."""
    events = []
    if new.node_name != old.node_name and new.node_name is not None:
        events.append(EventText("Normal", "Scheduled", f"The machine is bound to node {new.node_name}."))
    ready, before = _find(new.conditions, ConditionType.READY), _find(old.conditions, ConditionType.READY)
    if ready is not None and _changed(old, new, before, ready):
        events.append(_event(new.printable_status in _WARNINGS or _stopped_by_disk(new, ready), ready))
    if (moved := _moved(old, new)) is not None:
        events.append(EventText("Normal", "NumaMoved", moved[:_MAX_MESSAGE]))
    restart = _find(new.conditions, ConditionType.RESTART_REQUIRED)
    if restart is not None and _find(old.conditions, ConditionType.RESTART_REQUIRED) is None:
        events.append(EventText("Normal", "RestartRequired", restart.message[:_MAX_MESSAGE]))
    return tuple(events)


def _moved(old: VirtualMachineStatus, new: VirtualMachineStatus) -> str | None:
    """Return why a running machine was moved to other NUMA cells; a new start that chooses others is no move."""
    before, now = old.machine, new.machine
    if not (before and now and before.numa and now.numa) or before.started_at != now.started_at:
        return None
    return now.numa.message if before.numa.cells != now.numa.cells else None


def image_events(old: VMImageStatus, new: VMImageStatus) -> tuple[EventText, ...]:
    """Return the Events of an image's change."""
    ready, before = _find(new.conditions, ConditionType.READY), _find(old.conditions, ConditionType.READY)
    if ready is None or (old.phase == new.phase and before is not None and before.reason == ready.reason):
        return ()
    return (_event(new.phase == ImagePhase.FAILED, ready),)


def snapshot_events(old: VMSnapshotStatus, new: VMSnapshotStatus) -> tuple[EventText, ...]:
    """Return the Events of a snapshot's change: it was captured, or that failed."""
    ready = _find(new.conditions, ConditionType.READY)
    if ready is None or old.phase == new.phase:
        return ()
    if new.phase is SnapshotPhase.READY:
        pause = f"; the guest stood still for {new.pause_milliseconds} ms" if new.pause_milliseconds else ""
        return (EventText("Normal", "Captured", f"The machine is captured{pause}."),)
    if new.phase is SnapshotPhase.FAILED:
        return (EventText("Warning", "Failed", ready.message[:_MAX_MESSAGE]),)
    return ()


def restore_events(old: VMRestoreStatus, new: VMRestoreStatus) -> tuple[EventText, ...]:
    """Return the Events of a restore's change: it began, and how it ended."""
    complete = _find(new.conditions, ConditionType.COMPLETE)
    if complete is None or old.phase == new.phase or new.phase is RestorePhase.PENDING:
        return ()
    if new.phase is RestorePhase.RESTORING:
        return (EventText("Normal", "Restoring", "The restore begins."),)
    return (_event(new.phase is RestorePhase.FAILED, complete),)


def schedule_events(
    old: VMSnapshotScheduleStatus, new: VMSnapshotScheduleStatus, *, captured: int | None
) -> tuple[EventText, ...]:
    """Return the Events of a schedule's change; `captured` machines at a time that came, None when it was skipped."""
    events = []
    if new.last_schedule_time is not None and new.last_schedule_time != old.last_schedule_time:
        time = f"{new.last_schedule_time:%Y-%m-%dT%H:%MZ}"
        if captured is None:
            events.append(
                EventText("Warning", "Missed", f"The time {time} was missed, and nothing is captured for it.")
            )
        else:
            events.append(
                EventText("Normal", "Scheduled", f"Snapshots of {captured} machines are asked for at {time}.")
            )
    ready, before = _find(new.conditions, ConditionType.READY), _find(old.conditions, ConditionType.READY)
    said = None if before is None else (before.reason, before.message)
    if ready is not None and ready.reason in _FAILED_RUNS and said != (ready.reason, ready.message):
        events.append(_event(True, ready))  # noqa: FBT003
    return tuple(events)


_FAILED_RUNS: Final = frozenset({"CaptureFailed", "NotCaptured"})


def node_events(old: VMNodeStatus, new: VMNodeStatus) -> tuple[EventText, ...]:
    """Return the Events of a node's change."""
    events = []
    ready, before = _find(new.conditions, ConditionType.READY), _find(old.conditions, ConditionType.READY)
    if ready is not None and (before is None or before.reason != ready.reason):
        events.append(_event(ready.status != ConditionStatus.TRUE, ready))
    if added := sorted(set(new.orphans) - set(old.orphans)):
        message = f"Machine {added[0]} on the node has no object and is kept; {len(new.orphans)} such machines in all."
        events.append(EventText("Warning", "OrphanFound", message))
    return (*events, *_maintenance_events(old, new), *_pool_events(old, new))


def _maintenance_events(old: VMNodeStatus, new: VMNodeStatus) -> Iterator[EventText]:
    """Yield the Event of maintenance that began or ended; whether the node is Ready has Events of its own."""
    before, now = (_find(status.conditions, ConditionType.SCHEDULABLE) for status in (old, new))
    was, is_ = (found is not None and found.reason == _MAINTENANCE for found in (before, now))
    if is_ and not was:
        yield EventText("Normal", "MaintenanceBegun", "The node takes no new machines; those that are there go on.")
    if was and not is_:
        yield EventText("Normal", "MaintenanceEnded", "The node takes new machines again as soon as it is Ready.")


_GOOD_NETWORK: Final = frozenset({"Ready", "InForce"})


def network_events(old: Sequence[Condition], new: Sequence[Condition]) -> tuple[EventText, ...]:
    """Return the Events of a switch's or group's change, by the reason of its condition Ready."""
    ready, before = _find(new, ConditionType.READY), _find(old, ConditionType.READY)
    if ready is None or (before is not None and before.reason == ready.reason):
        return ()
    return (_event(ready.reason not in _GOOD_NETWORK, ready),)


def _pool_events(old: VMNodeStatus, new: VMNodeStatus) -> Iterator[EventText]:
    """Yield the Events of a node's pools: pressure that came, changed or went, and pools that are not as wanted."""
    before, now = (_find(status.conditions, ConditionType.PRESSURE) for status in (old, new))
    if now is None and before is not None:
        yield EventText("Normal", "PressureRelieved", "Every pool takes new disks and images again.")
    for kind in (ConditionType.PRESSURE, ConditionType.POOLS_READY, ConditionType.NETWORK_READY):
        before, now = (_find(status.conditions, kind) for status in (old, new))
        bad = now is not None and now.reason not in {"Ready", "Synchronizing"}
        if now is not None and bad and (before is None or before.message != now.message):
            yield EventText("Warning", now.reason, now.message[:_MAX_MESSAGE])


def _changed(old: VirtualMachineStatus, new: VirtualMachineStatus, before: Condition | None, ready: Condition) -> bool:
    """Tell whether the word or its reason changed; of an invalid spec, also what is wrong with it."""
    if before is None or old.printable_status != new.printable_status or before.reason != ready.reason:
        return True
    return new.printable_status == PrintableStatus.INVALID and before.message != ready.message


def _stopped_by_disk(status: VirtualMachineStatus, ready: Condition) -> bool:
    """Tell whether nobody has asked for a pause."""
    return status.printable_status == PrintableStatus.PAUSED and ready.reason != "Paused"


def _event(warning: bool, condition: Condition) -> EventText:  # noqa: FBT001  private, called with an expression
    return EventText("Warning" if warning else "Normal", condition.reason, condition.message[:_MAX_MESSAGE])


def _find(conditions: Sequence[Condition], type_: ConditionType) -> Condition | None:
    return next((condition for condition in conditions if condition.type == type_), None)
