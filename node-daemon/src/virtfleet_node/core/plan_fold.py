"""Layers that nobody names, as the next action."""

from collections.abc import Iterable

from virtfleet_node.core.actions import (
    Action,
    AttachDisk,
    DetachDisk,
    GrowDisk,
    MergeLayers,
    PrepareDisk,
    ResizeDisk,
)
from virtfleet_node.core.observed import Observed

_OF_DISKS = (AttachDisk, DetachDisk, GrowDisk, PrepareDisk, ResizeDisk)


def plan_fold(observed: Observed, changes: Iterable[Action] = ()) -> tuple[MergeLayers, ...]:
    """Return that layers are due to be merged.

    Not while the guest's disks are copied, nor while it waits for room in a pool. Changes of disks come first, since
    QEMU refuses them while it works on a disk.
    """
    copied = observed.is_copied or (observed.disks_in_use and not observed.merging)
    busy = copied or observed.domain.disk_error or any(isinstance(change, _OF_DISKS) for change in changes)
    due = observed.folding is not None and not observed.folding.waits
    return (MergeLayers(),) if due and not busy else ()
