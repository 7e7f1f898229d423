"""Disks that shall need no image any more, nor layers of other machines, as the next action."""

from collections.abc import Iterator

from virtfleet_api.machine import (
    DiskCopySource,
    ExistingSource,
    ImageDiskSource,
    Machine,
    MachineDisk,
    RetainedSource,
    SnapshotDiskSource,
)
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.actions import FlattenDisk
from virtfleet_node.core.observed import Observed


def plan_flatten(desired: Machine, observed: Observed) -> tuple[FlattenDisk, ...]:
    """Return the disk that is due to be made independent of its image.

    Not while the guest's disks are copied, nor while it waits for room in a pool.
    """
    return () if observed.is_copied or observed.domain.disk_error else tuple(_due(desired, observed))[:1]


def _due(desired: Machine, observed: Observed) -> Iterator[FlattenDisk]:
    targets = {disk.file: disk.target for disk in observed.domain.disks}
    for disk in desired.hardware.own_disks:
        file = observed.stored_disk(disk)
        if file is None or not file.needs_others or not _shall_be_full(disk):
            continue
        target = targets.get(str(file.path))
        if target is not None or not observed.domain.active:
            yield FlattenDisk(disk.pool, disk.name, target)


def _shall_be_full(disk: MachineDisk) -> bool:
    made = (ImageDiskSource, DiskCopySource, RetainedSource, SnapshotDiskSource, ExistingSource)
    return isinstance(disk.source, made) and disk.source.clone is Clone.FULL
