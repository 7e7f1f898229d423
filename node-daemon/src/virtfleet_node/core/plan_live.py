"""What can be changed while a guest runs, as the next actions."""

from collections.abc import Iterator

from virtfleet_api.machine import Machine, MachineDisk
from virtfleet_node.core.actions import Action, LimitDisk, ResizeDisk
from virtfleet_node.core.desired.io_tune import build_tuning, effective
from virtfleet_node.core.observed import AttachedDisk, Observed
from virtfleet_node.core.stored import StoredDisk


def plan_live(desired: Machine, observed: Observed) -> tuple[Action, ...]:
    """Return the changes of a running guest that bring it closer to its document."""
    stored = {(disk.pool, disk.name): disk for disk in observed.disks}
    attached = {disk.file: disk for disk in observed.domain.disks}
    keep_size = observed.is_copied or observed.flattening is not None  # QEMU refuses to resize what a job works on
    found = ((disk, stored.get((disk.pool, disk.name))) for disk in desired.hardware.disks)
    return tuple(
        action
        for disk, file in found
        if file is not None and (seen := attached.get(str(file.path))) is not None
        for action in _plan_disk(disk, file, seen, keep_size=keep_size)
    )


def is_too_small(disk: MachineDisk, stored: StoredDisk) -> bool:
    """Tell whether a disk must grow; one that is larger than its document stays so, since shrinking loses data."""
    return disk.size_bytes is not None and stored.capacity_bytes < disk.size_bytes


def _plan_disk(disk: MachineDisk, stored: StoredDisk, seen: AttachedDisk, *, keep_size: bool) -> Iterator[Action]:
    if is_too_small(disk, stored) and disk.size_bytes is not None and not keep_size:
        yield ResizeDisk(seen.target, disk.size_bytes)
    if effective(build_tuning(disk)) != effective(dict(seen.tuning)):
        yield LimitDisk(seen.target, tuple(build_tuning(disk).items()))
