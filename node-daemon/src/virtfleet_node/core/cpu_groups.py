"""Which machines contend for which CPUs.

Machines that may run anywhere contend for the whole host. Those that are kept to some CPUs contend with whom they share
one with; who is kept to two cells joins these to one group, since a weight counts in all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CpuGroup:
    """CPUs, and the machines that run on them and nowhere else."""

    cpus: frozenset[int]
    members: tuple[str, ...]


def group_by_cpus(sets: Mapping[str, frozenset[int]]) -> tuple[CpuGroup, ...]:
    """Return the groups, each in the order of its machines' UIDs; a machine without CPUs is in none."""
    groups: list[CpuGroup] = []
    for uid, cpus in sorted(sets.items()):
        if not cpus:
            continue
        near = [group for group in groups if group.cpus & cpus]
        groups = [group for group in groups if not group.cpus & cpus]
        members = tuple(sorted((uid, *(member for group in near for member in group.members))))
        groups.append(CpuGroup(frozenset(cpus.union(*(group.cpus for group in near))), members))
    return tuple(groups)
