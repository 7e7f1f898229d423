"""Conditions in the form of metav1.Condition, and the one function that changes them."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Model


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """The conditions that virtfleet sets. Every kind has Ready, but for VMRestore, which has Complete.

    Reconciling and Stalled are there while they are True: kstatus, which GitOps tools judge objects by, knows them.
    """

    READY = "Ready"
    SCHEDULED = "Scheduled"
    SYNCHRONIZED = "Synchronized"
    AGENT_CONNECTED = "AgentConnected"
    RESTART_REQUIRED = "RestartRequired"
    PAUSED = "Paused"
    ORPHANS = "Orphans"
    PRESSURE = "Pressure"
    POOLS_READY = "PoolsReady"
    NETWORK_READY = "NetworkReady"
    SCHEDULABLE = "Schedulable"
    COMPLETE = "Complete"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Condition(Model):
    """One aspect of an object's state, with a sentence for people."""

    type: Annotated[str, Field(description="Name of the aspect, such as Ready.")]
    status: Annotated[ConditionStatus, Field(description="True, False or Unknown.")]
    reason: Annotated[str, Field(description="One CamelCase word for programs.")]
    message: Annotated[str, Field(description="One sentence for people: what happened and what to do.")] = ""
    observed_generation: Annotated[int, Field(description="The spec's generation this was said of.")] = 0
    last_transition_time: Annotated[datetime, Field(description="When the status last changed.")]


def set_condition(conditions: Sequence[Condition], new: Condition) -> tuple[Condition, ...]:
    """Replace the condition of the same type, keeping its transition time unless its status changed."""
    old = next((c for c in conditions if c.type == new.type), None)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    others = [c for c in conditions if c.type != new.type]
    return tuple(sorted([*others, new], key=lambda c: c.type))
