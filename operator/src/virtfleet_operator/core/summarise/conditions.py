"""Building conditions: what is said now, with the time when it last changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from virtfleet_api.conditions import Condition, ConditionStatus, ConditionType

YES: Final = ConditionStatus.TRUE
NO: Final = ConditionStatus.FALSE
NOBODY_KNOWS: Final = ConditionStatus.UNKNOWN

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


def conditions(old: Sequence[Condition], now: datetime, said: Sequence[Says]) -> tuple[Condition, ...]:
    """Return exactly the conditions said, each with the time of its last change; sorted, so that equal is equal."""
    before = {condition.type: condition for condition in old}
    return tuple(_condition(s, before.get(s.type), now) for s in sorted(said, key=lambda s: s.type))


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
