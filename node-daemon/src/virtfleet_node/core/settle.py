"""What the daemon learns from looking: a guest that was running and is off has ended, and this is why.

Works as well when the guest ended while the daemon was down.
"""

from datetime import datetime
from typing import Final

from virtfleet_api.machine import Machine, Restart, Run
from virtfleet_api.report import StopReason
from virtfleet_node.core.backoff import is_steady
from virtfleet_node.core.observed import DomainState, Observed, OffReason
from virtfleet_node.core.record import ERROR_LENGTH, Life, Record, forgiven

_REASONS: Final = {
    OffReason.UNKNOWN: StopReason.NODE_RESTARTED,
    OffReason.SHUTDOWN: StopReason.GUEST_SHUTDOWN,
    OffReason.DESTROYED: StopReason.QEMU_FAILED,  # not by this daemon, which leaves a mark before it destroys
    OffReason.FAILED: StopReason.QEMU_FAILED,
}


def settle(desired: Machine, observed: Observed, now: datetime) -> Record:
    """Return the record with what can be concluded from what is seen; the same record when that is nothing."""
    record = _not_later(observed.record, now)
    if observed.domain.state is DomainState.CRASHED:
        record = record.model_copy(update={"panicked": True})
    if observed.domain.active:
        return _settle_active(record, now)
    if record.life is Life.RUNNING:
        record = _settle_end(record, observed.domain.off_reason, now)
    elif record.life is Life.STARTING:
        record = record.model_copy(update={"life": Life.OFF})
    return _settle_off(desired, record)


def _not_later(record: Record, now: datetime) -> Record:
    """Return the record without times to come: after the clock was set back, waits would last until it caught up."""
    times = {name: getattr(record, name) for name in ("started_at", "stopped_at", "stopping_since")}
    update = {name: now for name, moment in times.items() if moment is not None and moment > now}
    return record.model_copy(update=update) if update else record


def _settle_active(record: Record, now: datetime) -> Record:
    if record.life is not Life.RUNNING:
        started_at = record.started_at if record.life is Life.STARTING else now
        return record.model_copy(update={"life": Life.RUNNING, "started_at": started_at, "ended": False})
    if record.failures and is_steady(record, now):
        return record.model_copy(update={"failures": 0})
    return record


def _settle_end(record: Record, off_reason: OffReason, now: datetime) -> Record:
    """Return the record after an end. After a reboot of the host nobody ended it: it goes on as if it were running."""
    requested = record.stopping_since is not None
    panicked = StopReason.GUEST_CRASHED if record.panicked else None
    reason = StopReason.REQUESTED if requested else panicked or _REASONS[off_reason]
    by_itself = reason not in {StopReason.REQUESTED, StopReason.NODE_RESTARTED}
    failures = (0 if is_steady(record, now) else record.failures) + by_itself
    return record.model_copy(
        update={
            "life": Life.OFF,
            "stopped_at": now,
            "stopping_since": None,
            "panicked": False,
            "last_stop": reason,
            "ended": by_itself,
            "failures": failures,
        }
    )


def _settle_off(desired: Machine, record: Record) -> Record:
    """Return the record of a machine that is off: to be asked to stop wipes out what its guest did before."""
    settled = forgiven(record) if desired.run in {Run.STOPPED, Run.ABSENT} else record
    if settled.stopping_since is not None:
        settled = settled.model_copy(update={"stopping_since": None})
    return record if settled == record else settled


def stays_off(desired: Machine, record: Record) -> bool:
    """Tell whether a guest that ended by itself is left off by the restart policy."""
    if not record.ended or desired.restart is Restart.ALWAYS:
        return False
    return desired.restart is Restart.NEVER or record.last_stop is StopReason.GUEST_SHUTDOWN


def starting(desired: Machine, record: Record, now: datetime) -> Record:
    """Return the record that is kept just before a start."""
    return record.model_copy(
        update={
            "life": Life.STARTING,
            "served_token": desired.start_token,
            "started_at": now,
            "stopping_since": None,
            "panicked": False,
            "ended": False,
            "start_error": "",
            "failures": 0 if desired.start_token != record.served_token else record.failures,
        }
    )


def failed_start(record: Record, error: str, now: datetime) -> Record:
    """Return the record after a start that failed."""
    return record.model_copy(
        update={
            "life": Life.OFF,
            "stopped_at": now,
            "failures": record.failures + 1,
            "start_error": " ".join(error.split())[:ERROR_LENGTH] or "unknown error",
        }
    )
