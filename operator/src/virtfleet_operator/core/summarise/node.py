"""The status of a VMNode: its inventory, what is promised, and whether it is heard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.quantity import Bytes, Frequency
from virtfleet_api.report import NodeReport, PoolReport
from virtfleet_api.vm_node import (
    NodeResources,
    NodeVersions,
    NumaCellStatus,
    PoolStatus,
    VMNode,
    VMNodeStatus,
)
from virtfleet_operator.core.place import Load, allocatable
from virtfleet_operator.core.summarise.bounds import count_of, size_of
from virtfleet_operator.core.summarise.conditions import NO, NOBODY_KNOWS, YES, Saying, Says, conditions
from virtfleet_operator.core.verdict import join_problems, plain

FREE_STEP: Final = 0.05
"""Share of a pool's capacity by which its free space must move to be written again (docs/adr/0003)."""

_MAX_WORD: Final = 128
_MAX_CELLS: Final = 64  # NUMA cells; the largest servers have 32
_MAX_POOLS: Final = 64


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is decided about a node, and what it says."""

    problems: Sequence[str] = ()
    report: NodeReport | None = None
    heard: bool = False
    address: str | None = None
    load: Load = field(default_factory=Load)
    orphans: Sequence[str] = ()


def summarise_node(node: VMNode, facts: NodeFacts, now: datetime) -> VMNodeStatus:
    """Return the status of a node; the inventory of one that is not heard is what was last known."""
    old, meta = node.status, node.metadata
    inventory = _inventory(node, facts.report) if facts.report else {}
    said = tuple(_says(meta.generation, facts))
    return old.model_copy(
        update=inventory
        | {
            "observed_generation": meta.generation,
            "address": facts.address or old.address,
            "allocated": NodeResources(cpus=count_of(facts.load.vcpus), memory=size_of(facts.load.memory_bytes)),
            "machines": facts.load.machines,
            "orphans": tuple(facts.orphans),
            "conditions": conditions(old.conditions, now, said),
        }
    )


def _inventory(node: VMNode, report: NodeReport) -> dict[str, object]:
    promised = allocatable(node, report)
    return {
        "hypervisor": plain(report.hypervisor, _MAX_WORD),
        "versions": NodeVersions(
            daemon=plain(report.daemon_version, _MAX_WORD),
            libvirt=plain(report.libvirt_version, _MAX_WORD),
            qemu=plain(report.qemu_version, _MAX_WORD),
        ),
        "cpu_frequency": Frequency(min(report.cpu_frequency_hz, Frequency.largest))
        if report.cpu_frequency_hz > 0
        else None,
        "capacity": NodeResources(cpus=count_of(report.cpus), memory=size_of(report.memory_bytes)),
        "allocatable": NodeResources(cpus=count_of(promised.vcpus), memory=size_of(promised.memory_bytes)),
        "numa": tuple(
            NumaCellStatus(cell=count_of(cell.cell), cpus=plain(cell.cpus, _MAX_WORD), memory=memory)
            for cell in report.numa[:_MAX_CELLS]
            if (memory := size_of(cell.memory_bytes))
        ),
        "pools": tuple(_pools(node.status, report.pools[:_MAX_POOLS])),
    }


def _pools(old: VMNodeStatus, reported: Sequence[PoolReport]) -> Iterator[PoolStatus]:
    before = {pool.name: pool for pool in old.pools}
    for pool in sorted(reported, key=lambda p: p.name):
        if capacity := size_of(pool.capacity_bytes):
            name = plain(pool.name, _MAX_WORD)
            yield PoolStatus(name=name, capacity=capacity, free=_steady_free(before.get(name), pool))


def _steady_free(before: PoolStatus | None, pool: PoolReport) -> Bytes | None:
    """Keep the figure that is written until it is wrong by a step; an empty pool is always told."""
    free = size_of(pool.free_bytes)
    if before is None or before.free is None or free is None:
        return free
    moved = abs(free - before.free) >= FREE_STEP * pool.capacity_bytes
    return free if moved or before.free > pool.capacity_bytes else before.free


def _says(generation: int, facts: NodeFacts) -> Iterator[Says]:
    yield Says(ConditionType.READY, *_ready(facts), generation)
    if facts.orphans:
        message = (
            f"{len(facts.orphans)} machines on the node have no object: they are kept until an administrator "
            "removes them, see status.orphans."
        )
        yield Says(ConditionType.ORPHANS, YES, "Found", message, generation)


def _ready(facts: NodeFacts) -> Saying:
    if facts.problems:
        return NO, "Invalid", join_problems(facts.problems)
    if not facts.heard:
        return NOBODY_KNOWS, "Unreachable", "The node daemon is not heard: see its log and the network between."
    if facts.report is None:
        return NO, "Connecting", "The node has not sent its inventory yet."
    if not facts.report.hypervisor_connected:
        return NO, "HypervisorUnavailable", "libvirtd does not answer the node daemon: see its log on the node."
    return YES, "Ready", "The node takes machines."
