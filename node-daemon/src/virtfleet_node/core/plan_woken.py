"""What a guest that went on from memory is told by its agent: the time, and who it is now."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from virtfleet_node.core.actions import WriteRecord
from virtfleet_node.core.due import Change, ask
from virtfleet_node.core.observed import DomainState, Observed
from virtfleet_node.core.record import ERROR_LENGTH, Record
from virtfleet_node.core.restore_actions import CLOCK, MACHINE_ID, SetClock, SetMachineId

PATIENCE: Final = timedelta(seconds=60)
"""A restore waits so long for the agent to write a machine-id. An agent that goes on from memory answers at once."""


def plan_woken(observed: Observed, now: datetime) -> Iterator[Change]:
    """Have the agent asked, once guest and agent run."""
    if observed.domain.state is not DomainState.RUNNING:
        return
    if observed.record.clock_behind and observed.domain.agent_connected:
        yield ask(SetClock(), CLOCK, observed, now)
    if observed.record.machine_id_due:
        yield from _plan_machine_id(observed, observed.record, now)


def _plan_machine_id(observed: Observed, record: Record, now: datetime) -> Iterator[Change]:
    end = (record.started_at or now) + PATIENCE
    silent = WriteRecord(kept_machine_id(record, f"its agent did not answer within {PATIENCE.seconds} s"))
    if now >= end:
        yield Change(silent)
        return
    yield Change(silent, end)
    if observed.domain.agent_connected:
        yield ask(SetMachineId(), MACHINE_ID, observed, now)


def kept_machine_id(record: Record, why: str) -> Record:
    """Return the record of a guest whose agent has written its machine-id, or has not: then `why` says so."""
    return record.model_copy(update={"machine_id_due": False, "machine_id_error": " ".join(why.split())[:ERROR_LENGTH]})
