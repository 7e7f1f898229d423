"""The status of a VMClass: whether machines can use it."""

from collections.abc import Sequence
from datetime import datetime

from virtfleet_api.conditions import ConditionType
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_class import VMClassStatus
from virtfleet_operator.core.summarise.conditions import NO, YES, Says, conditions
from virtfleet_operator.core.verdict import join_problems


def summarise_class(meta: ObjectMeta, old: VMClassStatus, problems: Sequence[str], now: datetime) -> VMClassStatus:
    """Return the status of a VMClass."""
    said = (NO, "Invalid", join_problems(problems)) if problems else (YES, "Valid", "Machines can name this class.")
    ready = Says(ConditionType.READY, *said, meta.generation)
    return VMClassStatus(observed_generation=meta.generation, conditions=conditions(old.conditions, now, [ready]))
