"""Disks that are copied from other machines' disks, as the next action."""

from itertools import groupby
from operator import attrgetter

from virtfleet_api.machine import DiskCopySource, Machine, MachineDisk
from virtfleet_node.core.actions import CloneDisks
from virtfleet_node.core.observed import Observed


def plan_clones(desired: Machine, observed: Observed) -> tuple[CloneDisks, ...]:
    """Return the copy that is due: all missing disks that come from one machine, so that they fit together."""
    found = copies_wanted(desired, {(disk.pool, disk.name) for disk in observed.disks})
    by_source = groupby(found, key=lambda pair: pair[0])
    return tuple(CloneDisks(uid, tuple(disk for _, disk in pairs)) for uid, pairs in by_source)[:1]


def copies_wanted(desired: Machine, there: set[tuple[str, str]]) -> list[tuple[str, MachineDisk]]:
    """Return the disks that are still to be copied, each after the UID of the machine it comes from.

    `there` are (pool, name) of the disks that exist.
    """
    wanted = (
        (disk.source.machine_uid, disk)
        for disk in desired.hardware.disks
        if isinstance(disk.source, DiskCopySource) and (disk.pool, disk.name) not in there
    )
    return sorted(wanted, key=lambda pair: (pair[0], attrgetter("pool", "name")(pair[1])))
