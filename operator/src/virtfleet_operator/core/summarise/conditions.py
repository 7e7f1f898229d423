"""Building conditions: what is said now, with the time when it last changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from virtfleet_api.conditions import Condition, ConditionStatus, ConditionType

YES: Final = ConditionStatus.TRUE
NO: Final = ConditionStatus.FALSE
NOBODY_KNOWS: Final = ConditionStatus.UNKNOWN

INVALID: Final = "Invalid"
"""Reason of the main condition when the spec must be changed."""

_MAIN: Final = frozenset({ConditionType.READY, ConditionType.COMPLETE})

Saying = tuple[ConditionStatus, str, str]
"""Status, reason and message."""


@dataclass(frozen=True, slots=True)
class Says:
    """One aspect as it is now, without a time."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str
    generation: int


def conditions(
    old: Sequence[Condition], now: datetime, said: Sequence[Says], *, failed: bool = False
) -> tuple[Condition, ...]:
    """Return exactly the conditions said, each with the time of its last change; sorted, so that equal is equal.

    Stalled repeats the main condition, Ready or Complete, of an object that will not get there by itself: it has
    `failed`, or its spec is invalid.
    """
    before = {condition.type: condition for condition in old}
    stalled = (replace(s, type=ConditionType.STALLED, status=YES) for s in said if _is_stalled(s, failed=failed))
    return tuple(_condition(s, before.get(s.type), now) for s in sorted((*said, *stalled), key=lambda s: s.type))


def _is_stalled(said: Says, *, failed: bool) -> bool:
    return said.type in _MAIN and said.status == NO and (failed or said.reason == INVALID)


def _condition(said: Says, before: Condition | None, now: datetime) -> Condition:
    unchanged = before is not None and before.status == said.status
    return Condition(
        type=said.type,
        status=said.status,
        reason=said.reason,
        message=said.message,
        observed_generation=said.generation,
        last_transition_time=before.last_transition_time if before and unchanged else now.replace(microsecond=0),
    )
