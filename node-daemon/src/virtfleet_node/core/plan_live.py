"""What can be changed while a guest runs, as the next actions."""

from collections.abc import Iterator
from datetime import datetime

from virtfleet_api.machine import Machine, MachineDisk
from virtfleet_node.core.actions import (
    Action,
    AttachDisk,
    ChangeMedium,
    DetachDisk,
    LimitDisk,
    LongAction,
    PrepareDisk,
    ResizeDisk,
)
from virtfleet_node.core.attached import (
    attachable,
    attached,
    detachable,
    is_inserted,
    limits_differ,
    limits_field,
    unwanted,
)
from virtfleet_node.core.desired.cpu_tune import build_quota, live_scheduling, running_vcpus
from virtfleet_node.core.desired.io_tune import build_tuning
from virtfleet_node.core.due import Change, ask
from virtfleet_node.core.limit_actions import LimitCpu
from virtfleet_node.core.observed import Observed
from virtfleet_node.core.plan_cards import plan_cards
from virtfleet_node.core.plan_clones import plan_clones
from virtfleet_node.core.plan_devices import plan_devices
from virtfleet_node.core.plan_flatten import plan_flatten
from virtfleet_node.core.plan_fold import plan_fold
from virtfleet_node.core.plan_memory import plan_memory
from virtfleet_node.core.plan_pins import plan_pins
from virtfleet_node.core.plan_vcpus import plan_vcpus
from virtfleet_node.core.plan_volumes import plan_volumes
from virtfleet_node.core.plan_woken import plan_woken
from virtfleet_node.core.stored import StoredDisk


def plan_live(desired: Machine, observed: Observed, now: datetime) -> tuple[tuple[Action, ...], datetime | None]:
    """Return the changes of a running guest that bring it closer to its document, and when to look again.

    What is quick comes first: a disk that cannot be made must not keep another from being limited.
    """
    if observed.is_captured:
        return plan_clones(desired, observed), None
    changes = (
        *(Change(action) for action in _plan_cpu(desired, observed)),
        *(Change(action) for action in _plan_attached(desired, observed)),
        *_plan_media(desired, observed, now),
        *_plan_removals(desired, observed, now),
        *plan_vcpus(desired, observed, now),
        *plan_memory(desired, observed, now),
        *plan_cards(desired, observed, now),
        *plan_woken(observed, now),
        *(Change(action) for action in plan_pins(observed)),
        *plan_devices(desired, observed, now),
        *(Change(action) for action in _plan_new(desired, observed)),
        *plan_volumes(desired, observed, now),
    )
    due = tuple(change.action for change in changes if change.due is None)
    if not any(isinstance(action, LongAction) for action in due):
        due = (*due, *plan_fold(observed, due))
    later = tuple(change.due for change in changes if change.due is not None)
    return due, min(later, default=None)


def _plan_cpu(desired: Machine, observed: Observed) -> Iterator[Action]:
    limit = live_scheduling(desired, observed.domain.stored).limit_hz
    quota = build_quota(limit, running_vcpus(desired, observed), observed.cpu_frequency_hz)
    if quota != observed.domain.quota:
        yield LimitCpu(quota)


def is_too_small(disk: MachineDisk, stored: StoredDisk) -> bool:
    """Tell whether a disk must grow; one that is larger than its document stays so, since shrinking loses data."""
    return disk.size_bytes is not None and stored.capacity_bytes < disk.size_bytes


def _plan_attached(desired: Machine, observed: Observed) -> Iterator[Action]:
    keep_size = observed.is_copied or observed.flattening is not None  # QEMU refuses to resize what a job works on
    for disk in (*desired.hardware.own_disks, *desired.hardware.volumes):
        stored, seen = observed.stored_disk(disk), attached(disk, observed)
        if seen is not None:
            if stored and is_too_small(disk, stored) and disk.size_bytes is not None and not keep_size:
                yield ResizeDisk(seen.target, disk.size_bytes)
            if limits_differ(disk, seen) and limits_field(disk) not in desired.hardware.deferred:
                yield LimitDisk(seen.target, tuple(build_tuning(disk).items()))


def _plan_media(desired: Machine, observed: Observed, now: datetime) -> Iterator[Change]:
    """Change media once the image is there; until then the old one stays in."""
    for drive in desired.hardware.drives:
        seen = attached(drive, observed)
        ready = drive.medium_uid is None or drive.medium_uid in observed.ready_images
        if seen is not None and ready and not is_inserted(drive, seen):
            yield ask(ChangeMedium(seen.target, drive), seen.target, observed, now)


def _plan_removals(desired: Machine, observed: Observed, now: datetime) -> Iterator[Change]:
    for seen in unwanted(desired.hardware, observed):
        if detachable(seen):
            yield ask(DetachDisk(seen.target), seen.target, observed, now)


def _plan_new(desired: Machine, observed: Observed) -> Iterator[Action]:
    """Attach the disks that are there, and make one that is missing once its image is ready."""
    waiting = [disk for disk in desired.hardware.own_disks if attached(disk, observed) is None]
    ready = [disk for disk in waiting if attachable(disk, desired.hardware, observed)]
    yield from (AttachDisk(disk) for disk in ready if observed.stored_disk(disk) is not None)
    yield from (PrepareDisk(disk) for disk in ready if observed.stored_disk(disk) is None and can_make(disk, observed))
    yield from plan_clones(desired, observed) or plan_flatten(desired, observed)


def can_make(disk: MachineDisk, observed: Observed) -> bool:
    """Tell whether a disk is made by itself, and what it is made from is there."""
    if disk.source.kind == "Image":
        return disk.source.image_uid in observed.ready_images
    return disk.source.kind in {"Blank", "Retained", "Snapshot"}
