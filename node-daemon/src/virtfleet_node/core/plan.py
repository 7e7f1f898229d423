"""From desired and observed to the next actions. Pure: called again after every change, it never remembers."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from virtfleet_api.machine import ImageDiskSource, Machine, MachineDisk, Run
from virtfleet_api.virtual_machine import ReclaimPolicy
from virtfleet_node.core.actions import (
    Action,
    Destroy,
    FlattenDisk,
    GrowDisk,
    MergeLayers,
    Pause,
    PrepareDisk,
    RemoveDisk,
    RemoveMedia,
    RequestShutdown,
    Resume,
    ShutdownMode,
    Start,
    Undefine,
    WipeDisk,
    WriteRecord,
)
from virtfleet_node.core.backoff import STEADY, next_start_at
from virtfleet_node.core.cards import waiting_for_switch
from virtfleet_node.core.full_pool import LOOK, have_room, next_attempt
from virtfleet_node.core.guest_devices import choose_for_start
from virtfleet_node.core.observed import DomainState, Observed
from virtfleet_node.core.plan_clones import plan_clones
from virtfleet_node.core.plan_flatten import plan_flatten
from virtfleet_node.core.plan_fold import plan_fold
from virtfleet_node.core.plan_live import is_too_small, plan_live
from virtfleet_node.core.plan_restore import plan_restore, waits_for_others
from virtfleet_node.core.plan_volumes import LOOK_FOR_VOLUMES, missing_volumes, prepare_volumes
from virtfleet_node.core.record import Life, Record
from virtfleet_node.core.restore_actions import BeginRestore, StartWarm
from virtfleet_node.core.settle import settle, starting, stays_off

REPEAT_SHUTDOWN: Final = timedelta(seconds=3)
"""A guest misses the power button while it boots, so it is pressed again."""

LOOK_FOR_PLACE: Final = timedelta(seconds=10)
"""Neighbours that end wake a machine that waits for their CPUs; nobody tells of huge pages that come by themselves."""

LOOK_FOR_OTHERS: Final = timedelta(seconds=2)
"""A restore waits until a copy of the machine's disks has ended."""

ACPI_FIRST: Final = 2
"""Requests by the power button before the guest agent is asked as well: the button is what every guest understands."""


_KEEPING: Final = (Start, StartWarm, BeginRestore, WriteRecord, Undefine)
"""Actions that keep a record by themselves, or take it away."""


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to look again if nothing happens before."""

    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None

    def __str__(self) -> str:
        """Say it in words."""
        return ", ".join(str(action) for action in self.actions) or "nothing"


def plan(desired: Machine, observed: Observed, now: datetime) -> Plan:
    """Return the next actions that bring a machine closer to what is desired."""
    record = settle(desired, observed, now)
    restore = None if desired.run is Run.ABSENT else plan_restore(desired, observed, record, now)
    if observed.domain.state is DomainState.CRASHED:
        wanted = Plan((Destroy(),))  # nobody is there to be asked; what follows is decided once it is off
    elif desired.run is Run.ABSENT:
        wanted = _plan_absent(desired, observed, record, now)
    elif restore is not None:
        wanted = _plan_restore(restore, desired, observed, now)
    elif desired.run is Run.STOPPED:
        wanted = (
            _plan_stop(desired, observed, record, now) if observed.domain.active else _plan_stopped(desired, observed)
        )
    elif observed.domain.active:
        wanted = _plan_running(desired, observed, record, now)
    elif observed.domain.state is DomainState.ABSENT:
        wanted = Plan()
    else:
        wanted = _plan_off(desired, observed, record, now)
    if restore is None and desired.run is not Run.ABSENT and waits_for_others(desired, observed, record):
        wanted = _until_others_end(wanted, observed, now)
    return _with_record(wanted, observed, record)


def restart_pending(desired: Machine, record: Record) -> bool:
    """Tell whether the operator asked for a restart that has not been served."""
    return desired.start_token != record.served_token


def missing_images(desired: Machine, observed: Observed) -> frozenset[str]:
    """Return the images that must be there before the machine can start: those of disks, media and kernel."""
    backing = {(d.pool, d.name): d.backing_image_uid for d in observed.disks}
    needed = {
        uid
        for disk in desired.hardware.own_disks
        if (uid := backing.get((disk.pool, disk.name), _image_of(disk))) is not None
    }
    media = {drive.medium_uid for drive in desired.hardware.drives if drive.medium_uid is not None}
    kernel = {desired.hardware.kernel.image_uid} if desired.hardware.kernel else set()
    return frozenset(needed | media | kernel) - observed.ready_images


def _image_of(disk: MachineDisk) -> str | None:
    return disk.source.image_uid if isinstance(disk.source, ImageDiskSource) else None


def media_missing(desired: Machine, observed: Observed) -> bool:
    """Tell whether the cloud-init medium is gone: only the operator can send its content again."""
    return desired.hardware.cloud_init_digest not in {None, observed.media_digest}


def switch_missing(desired: Machine, observed: Observed) -> bool:
    """Tell whether a card is to be plugged into a switch, and the node has none now."""
    return bool(waiting_for_switch(desired.hardware, observed))


def _with_record(wanted: Plan, observed: Observed, record: Record) -> Plan:
    """Put what was learnt first, unless an action of the plan keeps it anyway."""
    kept = any(isinstance(action, _KEEPING) for action in wanted.actions)
    if kept or record == observed.record or observed.domain.state is DomainState.ABSENT:
        return wanted
    return Plan((WriteRecord(record), *wanted.actions), wanted.wake_at)


def _until_others_end(wanted: Plan, observed: Observed, now: datetime) -> Plan:
    """Look again soon, and end what can be ended; a machine that is off stays so, as it would be switched off again."""
    rest = tuple(action for action in wanted.actions if not isinstance(action, FlattenDisk | MergeLayers))
    actions = rest if observed.domain.active else ()
    return Plan(actions, min(filter(None, (wanted.wake_at, now + LOOK_FOR_OTHERS))))


def _plan_restore(actions: tuple[Action, ...], desired: Machine, observed: Observed, now: datetime) -> Plan:
    """Return the steps of a restore; a start from memory waits for the same things as any other start."""
    if not any(isinstance(action, StartWarm) for action in actions):
        return Plan(actions)
    if _lacks(desired, observed):
        return Plan()
    return Plan(wake_at=now + LOOK_FOR_PLACE) if observed.no_place is not None else Plan(actions)


def _plan_running(desired: Machine, observed: Observed, record: Record, now: datetime) -> Plan:
    if restart_pending(desired, record) or record.stopping_since is not None:
        return _plan_stop(desired, observed, record, now)
    power = _plan_power(desired, observed, record, now)
    changes, look_again = plan_live(desired, observed, now)
    moments = [moment for moment in (power.wake_at, look_again) if moment is not None]
    return Plan((*power.actions, *changes), min(moments, default=None))


def _plan_power(desired: Machine, observed: Observed, record: Record, now: datetime) -> Plan:
    if observed.is_captured:
        return Plan()
    paused = observed.domain.state is DomainState.PAUSED
    if desired.run is Run.PAUSED:
        return Plan(() if paused else (Pause(),))
    if paused:
        return _plan_resume(observed, now)
    return Plan(wake_at=record.started_at + STEADY if record.failures and record.started_at else None)


def _plan_resume(observed: Observed, now: datetime) -> Plan:
    """Let a guest go on; one that a disk error has stopped, when there is hope."""
    if observed.domain.disk_error:
        due = next_attempt(observed.paused_at or now, observed.resumes, full=bool(observed.full_pools))
        if now < due or not have_room(observed.full_pools):
            return Plan(wake_at=max(due, now + LOOK))
    return Plan((Resume(),))


def _plan_stop(desired: Machine, observed: Observed, record: Record, now: datetime) -> Plan:
    """Ask, ask again, then switch off. The mark comes first, so that the end is known as requested."""
    since = min(record.stopping_since or now, now)
    mark = WriteRecord(record.model_copy(update={"stopping_since": since, "life": Life.RUNNING}))
    first = () if record.stopping_since == since else (mark,)
    deadline = since + timedelta(seconds=desired.grace_period_seconds)
    if now >= deadline:
        return Plan((*first, Destroy()))
    last = observed.shutdown.last
    if last is not None and now < last + REPEAT_SHUTDOWN:
        return Plan(first, min(last + REPEAT_SHUTDOWN, deadline))
    wake = Resume() if observed.domain.state is DomainState.PAUSED else None
    steps = (*first, *((wake,) if wake else ()), RequestShutdown(_shutdown_mode(observed)))
    return Plan(steps, min(now + REPEAT_SHUTDOWN, deadline))


def _shutdown_mode(observed: Observed) -> ShutdownMode:
    """Return the power button first, then the agent and the button by turns."""
    turn = observed.shutdown.count - ACPI_FIRST
    agent = observed.domain.agent_connected and turn >= 0 and turn % 2 == 0
    return ShutdownMode.AGENT if agent else ShutdownMode.ACPI


def _plan_stopped(desired: Machine, observed: Observed) -> Plan:
    """Copy other machines' disks at once, as they are now; whatever else is missing is made at the next start."""
    if observed.domain.state is DomainState.ABSENT:
        return Plan()
    return Plan(plan_clones(desired, observed) or plan_flatten(desired, observed) or plan_fold(observed))


def _plan_off(desired: Machine, observed: Observed, record: Record, now: datetime) -> Plan:
    asked = restart_pending(desired, record)
    if stays_off(desired, record) and not asked:
        return Plan(plan_fold(observed))
    if copies := plan_clones(desired, observed):
        return Plan(copies)
    due = next_start_at(record, now)
    if not asked and (record.ended or record.start_error) and now < due:
        return Plan(wake_at=due)
    if (waits := _plan_waiting(desired, observed, now)) is not None:
        return waits
    found = [(disk, observed.stored_disk(disk)) for disk in desired.hardware.own_disks]
    missing = tuple(PrepareDisk(disk) for disk, stored in found if stored is None)
    small = tuple(GrowDisk(disk) for disk, stored in found if stored is not None and is_too_small(disk, stored))
    files = prepare_volumes(desired, observed)
    return Plan((*missing, *small, *files, Start(starting(desired, record, now), paused=desired.run is Run.PAUSED)))


def _plan_waiting(desired: Machine, observed: Observed, now: datetime) -> Plan | None:
    """Return when to look again for what a start waits for; None when it waits for nothing."""
    if _lacks(desired, observed):
        return Plan()
    if missing_volumes(desired, observed):
        return Plan(wake_at=now + LOOK_FOR_VOLUMES)
    return Plan(wake_at=now + LOOK_FOR_PLACE) if observed.no_place is not None else None


def _lacks(desired: Machine, observed: Observed) -> bool:
    """Tell whether a start waits for something that will be told when it is there."""
    missing = missing_images(desired, observed) or media_missing(desired, observed) or switch_missing(desired, observed)
    return bool(missing or choose_for_start(desired, observed).obstacle)


def _plan_absent(desired: Machine, observed: Observed, record: Record, now: datetime) -> Plan:
    """Stop the guest, remove what its reclaim policy says, and the domain last, since it is the memory of the rest.

    Not before the machines have their copies that are being made from its disks.
    """
    if observed.wanted_by:
        return Plan()
    if observed.domain.active:
        if observed.domain.stored is None:
            return Plan((Destroy(),))  # undefined while it was started: nothing can tell for how long it has been asked
        return _plan_stop(desired, observed, record, now)
    there = {(disk.pool, disk.name) for disk in observed.disks}
    doomed = [d for d in reclaimable(desired, record) if (d.pool, d.name) in there]
    removals = tuple(RemoveDisk(d.pool, d.name) for d in doomed if d.reclaim_policy is ReclaimPolicy.DELETE)
    wipes = tuple(WipeDisk(d.pool, d.name) for d in doomed if d.reclaim_policy is ReclaimPolicy.WIPE)
    if wipes:
        return Plan((*removals, wipes[0]))
    last = () if observed.domain.state is DomainState.ABSENT else (RemoveMedia(), Undefine())
    return Plan((*removals, *last))


def reclaimable(desired: Machine, record: Record) -> tuple[MachineDisk, ...]:
    """Return the disks that are removed with the machine: named by a document, with a policy other than Retain."""
    named = {(d.pool, d.name): d for d in (*record.detached, *desired.hardware.own_disks)}
    return tuple(d for d in named.values() if d.reclaim_policy is not ReclaimPolicy.RETAIN)
