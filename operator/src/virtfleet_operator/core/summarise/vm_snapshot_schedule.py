"""The status of a VMSnapshotSchedule: its times, and how the last one went."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_snapshot_schedule import VMSnapshotScheduleStatus
from virtfleet_operator.core.schedule import SUSPENDED
from virtfleet_operator.core.summarise.bounds import count_of
from virtfleet_operator.core.summarise.conditions import NO, YES, Saying, Says, conditions
from virtfleet_operator.core.verdict import join_problems

NOT_CAPTURED: Final = "NotCaptured"
"""Reason of the condition Ready when no VMSnapshot could be made at the last time."""

CAPTURE_FAILED: Final = "CaptureFailed"
"""The same, when a VMSnapshot of the last time failed."""


@dataclass(frozen=True, slots=True)
class ScheduleFacts:
    """What a schedule's status is made from."""

    problems: Sequence[str] = ()
    suspended: bool = False
    machines: int = 0
    snapshots: int = 0
    last_time: datetime | None = None
    next_time: datetime | None = None
    refused: Sequence[str] | None = None
    """Why machines were not captured at a time that came; None when none has come since the last look."""
    failed: Sequence[str] = ()
    """What is wrong with the snapshots of the last time."""


def summarise_schedule(
    meta: ObjectMeta, old: VMSnapshotScheduleStatus, facts: ScheduleFacts, now: datetime
) -> VMSnapshotScheduleStatus:
    """Return the status of a schedule; why nothing was captured is said until the next time."""
    ready = Says(ConditionType.READY, *_ready(old, facts), meta.generation)
    return VMSnapshotScheduleStatus(
        observed_generation=meta.generation,
        last_schedule_time=facts.last_time,
        next_schedule_time=facts.next_time,
        machines=count_of(facts.machines),
        snapshots=count_of(facts.snapshots),
        conditions=conditions(old.conditions, now, [ready]),
    )


def _ready(old: VMSnapshotScheduleStatus, facts: ScheduleFacts) -> Saying:
    if facts.problems:
        return NO, "Invalid", join_problems(facts.problems)
    if facts.suspended:
        return NO, SUSPENDED, "Nothing is captured and nothing removed: write suspend: false to go on."
    if facts.failed:
        return NO, CAPTURE_FAILED, join_problems(facts.failed)
    if why := _why_not(old, facts):
        return NO, NOT_CAPTURED, why
    if facts.machines == 0:
        return NO, "NoMachines", "There is no machine to capture: create one, or change virtualMachine or selector."
    return YES, "Ready", "It captures at the times of its schedule."


def _why_not(old: VMSnapshotScheduleStatus, facts: ScheduleFacts) -> str:
    """Return why machines were not captured at the last time that came."""
    if facts.refused is not None:
        return join_problems(facts.refused)
    before = (c for c in old.conditions if c.type == ConditionType.READY and c.reason == NOT_CAPTURED)
    return next((condition.message for condition in before), "")
