"""VMSnapshotSchedule: ask for snapshots when their time comes, and delete those that are not to stay.

The objects are made before the time is written down as acted on. A look that was cut off finds them by their names.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_snapshot import VMSnapshot, VMSnapshotSpec
from virtfleet_api.vm_snapshot_schedule import VMSnapshotSchedule
from virtfleet_operator.core.events import schedule_events
from virtfleet_operator.core.schedule import (
    Run,
    chosen_machines,
    coming_time,
    due_run,
    expired,
    failed_of,
    next_expiry,
    snapshot_object,
    unfinished,
)
from virtfleet_operator.core.summarise.vm_snapshot_schedule import ScheduleFacts, summarise_schedule
from virtfleet_operator.core.validate.vm_snapshot import capture_problems, number_problems
from virtfleet_operator.core.verdict import plain
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.errors import ConflictError, InvalidError, NotFoundError, RefusedError
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.reconcile.catalog import BY_LABEL, BY_NAMESPACE, MACHINE, SNAPSHOT, label_of
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import write_status
from virtfleet_operator.reconcile.vm_class import problems_of

log: Final = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS: Final = 3600.0
"""Between looks: the clock may be set meanwhile."""


@dataclass(frozen=True)
class _Outcome:
    """What a look did."""

    run: Run | None = None
    refused: tuple[str, ...] | None = None


async def reconcile_schedule(context: Context, key: Key) -> float | None:
    """Act on the time that has come, if one has, and wait for the next."""
    stored = context.cache.get(key)
    if stored is None or stored.meta.deletion_timestamp is not None:
        return None
    schedule, problems = stored.resource, problems_of(context, stored)
    if not isinstance(schedule, VMSnapshotSchedule) or problems:
        last = stored.status.last_schedule_time
        return await _write(context, stored, ScheduleFacts(problems=problems, last_time=last), _Outcome())
    now = context.clock()
    outcome = await _act(context, stored, schedule, due_run(schedule, now))
    if not schedule.spec.suspend:
        await _remove_expired(context, stored, schedule, now)
    delay = await _write(context, stored, _facts(context, stored, schedule, outcome, now), outcome)
    return min(_wait(context, stored, schedule, now), LONGEST_WAIT_SECONDS if delay is None else delay)


async def _act(context: Context, stored: Stored, schedule: VMSnapshotSchedule, run: Run | None) -> _Outcome:
    """Ask for a snapshot of each machine, if a time has come."""
    if run is None or not run.captures:
        return _Outcome(run)
    answers = [(vm, await _ask(context, stored, schedule, vm, run.time)) for vm in _machines(context, stored, schedule)]
    time = f"{run.time:%Y-%m-%dT%H:%MZ}"
    return _Outcome(run, tuple(f"{vm.metadata.name} at {time}: {problem}" for vm, problem in answers if problem))


async def _ask(
    context: Context, stored: Stored, schedule: VMSnapshotSchedule, vm: VirtualMachine, time: datetime
) -> str:
    """Make the VMSnapshot of a machine, unless it is there; return why it cannot be made."""
    body, path = snapshot_object(schedule, vm, time), OUR_PATHS[SNAPSHOT]
    name = body["metadata"]["name"]
    mine = _snapshots(context, stored)
    if any(snapshot.metadata.name == name for snapshot in mine):
        return ""
    if before := unfinished(mine, vm.metadata.name):
        return f"VMSnapshot {before.metadata.name} of an earlier time is still {before.status.phase}"
    others = context.catalog.machine_snapshots(*vm.key)
    spec = VMSnapshotSpec.model_validate(body["spec"])
    if problems := (*capture_problems(spec, vm), *number_problems(others, vm.metadata.name)):
        return problems[0]
    try:
        made = await context.client.create(path.collection(stored.key.namespace), body)
    except ConflictError:  # made by a look that was cut off, or by somebody else
        made = await context.client.get(path.object(stored.key.namespace, name))
    except (InvalidError, RefusedError) as error:
        return plain(str(error))
    context.cache.put(SNAPSHOT, made)
    found = context.cache.get(Key(SNAPSHOT, stored.key.namespace, name))
    if found is not None and found.meta.labels.items() >= body["metadata"]["labels"].items():
        return ""
    return f"VMSnapshot {name}, which is not of this schedule, is in the way: delete it"


async def _remove_expired(context: Context, stored: Stored, schedule: VMSnapshotSchedule, now: datetime) -> None:
    for snapshot in expired(schedule.spec.retention, _snapshots(context, stored), now):
        namespace, name = snapshot.key
        if context.catalog.snapshot_restores(namespace, name):
            continue  # its end makes this schedule be looked at
        extra = {"snapshot": f"{namespace}/{name}", "schedule": str(stored.key), "action": "delete"}
        log.info("Deleting a snapshot that is not to stay", extra=extra)
        version = snapshot.metadata.resource_version
        try:
            await context.client.delete(OUR_PATHS[SNAPSHOT].object(namespace, name), version=version)
        except (NotFoundError, ConflictError) as error:
            # It is gone, or was changed: its next version makes this schedule be looked at.
            log.info("The snapshot stays for now", extra=extra | {"reason": str(error)})


def _facts(
    context: Context, stored: Stored, schedule: VMSnapshotSchedule, outcome: _Outcome, now: datetime
) -> ScheduleFacts:
    snapshots = _snapshots(context, stored)
    last = outcome.run.time if outcome.run else stored.status.last_schedule_time
    failed = sorted(failed_of(schedule, snapshots, last), key=lambda snapshot: snapshot.metadata.name)
    return ScheduleFacts(
        suspended=schedule.spec.suspend,
        machines=len(_machines(context, stored, schedule)),
        snapshots=len(snapshots),
        last_time=last,
        next_time=coming_time(schedule, now),
        refused=outcome.refused,
        failed=[f"VMSnapshot {snapshot.metadata.name} failed: {_why(snapshot)}" for snapshot in failed],
    )


def _why(snapshot: VMSnapshot) -> str:
    return next((condition.message for condition in snapshot.status.conditions), "see its condition Ready")


def _machines(context: Context, stored: Stored, schedule: VMSnapshotSchedule) -> list[VirtualMachine]:
    found = (machine.resource for machine in context.cache.find(MACHINE, BY_NAMESPACE, stored.key.namespace))
    return chosen_machines(schedule, (vm for vm in found if isinstance(vm, VirtualMachine)))


def _snapshots(context: Context, stored: Stored) -> Sequence[VMSnapshot]:
    """Return the schedule's snapshots, without those that are being deleted."""
    found = [snapshot.resource for snapshot in context.cache.find(SNAPSHOT, BY_LABEL, label_of(stored.key))]
    return [s for s in found if isinstance(s, VMSnapshot) and s.metadata.deletion_timestamp is None]


def _wait(context: Context, stored: Stored, schedule: VMSnapshotSchedule, now: datetime) -> float:
    """Return the seconds until the next time, or until the next snapshot gets too old."""
    if schedule.spec.suspend:
        return LONGEST_WAIT_SECONDS
    ends = (coming_time(schedule, now), next_expiry(schedule.spec.retention, _snapshots(context, stored), now))
    return min(((end - now).total_seconds() for end in ends if end is not None), default=LONGEST_WAIT_SECONDS)


async def _write(context: Context, stored: Stored, facts: ScheduleFacts, outcome: _Outcome) -> float | None:
    now = context.clock()
    status = summarise_schedule(stored.meta, stored.status, facts, now)
    captured = facts.machines - len(outcome.refused) if outcome.refused is not None else None
    events = schedule_events(stored.status, status, captured=captured)
    return await write_status(context, stored, status, None if status == stored.status else now, events)
