"""Disks that shall need no image any more, as the next action."""

from collections.abc import Iterator

from virtfleet_api.machine import BlankSource, Machine
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.actions import FlattenDisk
from virtfleet_node.core.observed import Observed


def plan_flatten(desired: Machine, observed: Observed) -> tuple[FlattenDisk, ...]:
    """Return the disk that is due to be made independent of its image; nothing while the guest's disks are copied."""
    return () if observed.is_copied else tuple(_due(desired, observed))[:1]


def _due(desired: Machine, observed: Observed) -> Iterator[FlattenDisk]:
    stored = {(disk.pool, disk.name): disk for disk in observed.disks}
    attached = {disk.file: disk.target for disk in observed.domain.disks}
    for disk in desired.hardware.disks:
        file = stored.get((disk.pool, disk.name))
        full = not isinstance(disk.source, BlankSource) and disk.source.clone is Clone.FULL
        if file is None or file.backing_image_uid is None or not full:
            continue
        target = attached.get(str(file.path))
        if target is not None or not observed.domain.active:
            yield FlattenDisk(disk.pool, disk.name, target)
