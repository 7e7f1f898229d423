"""Which of the nodes that could take a machine is best."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from virtfleet_api.scheduling import TaintEffect
from virtfleet_operator.core.placement.candidate import Candidate
from virtfleet_operator.core.placement.labels import matches, untolerated
from virtfleet_operator.core.placement.need import Need
from virtfleet_operator.core.placement.vicinity import Vicinity

Rank = tuple[int, int, float, int, str]
"""The smaller, the better: taints, preferences, cost, machines that are there, and the name."""

Holders = Mapping[str, Collection[str]]
"""Names of the nodes that hold an image, by its UID."""

SPLIT_COST: Final = 0.25
"""Of a node without a NUMA cell that takes the machine whole: as much as a quarter of the node that is promised.

Memory of another cell is 1.5 to 2 times as far away (`numactl --hardware` says 20 or 21 to 10), which a guest feels
more than neighbours, but less than a node that is full.
"""

COPY_COST: Final = 0.5
"""Of a node without the machine's images, in shares of what the machine itself takes: it decides between nodes that
are equally full but for half a machine, so that equal machines spread evenly all the same. A copy takes seconds, once.
"""


class Strategy(StrEnum):
    """What is better among nodes that fit."""

    BALANCED = "Balanced"
    """The node that is least full afterwards."""
    PACKED = "Packed"
    """The node that is fullest afterwards, so that others stay empty."""


def rank(asked: Need, node: Candidate, near: Vicinity, strategy: Strategy, holders: Holders) -> Rank:
    """Return how good a node is.

    What is said of preferences outweighs how full the nodes are, and a taint outweighs preferences: the node takes
    the machine only when no other can.
    """
    full = fullness(asked, node)
    cost = (full if strategy is Strategy.BALANCED else -full) + _split(asked, node) + _copies(asked, node, holders)
    return (_taints(asked, node), -_preference(asked, node, near), round(cost, 9), node.load.machines, node.name)


def fullness(asked: Need, node: Candidate) -> float:
    """Return the scarcer of CPU and memory, as the share that is promised once the machine is there."""
    cpu = (node.load.vcpus + asked.vcpus) / max(1, node.vcpus)
    size = asked.hugepage_bytes
    if size is None:
        return max(cpu, (node.load.memory_bytes + asked.memory_bytes) / node.memory_bytes)
    return max(cpu, (node.load.hugepages.get(size, 0) + asked.memory_bytes) / node.hugepages[size].total_bytes)


def _taints(asked: Need, node: Candidate) -> int:
    return len(untolerated(node.taints, asked.tolerations, TaintEffect.PREFER_NO_SCHEDULE)) if node.taints else 0


def _preference(asked: Need, node: Candidate, near: Vicinity) -> int:
    if asked.affinity is None:
        return 0
    preferred = asked.affinity.node_affinity.preferred if asked.affinity.node_affinity else ()
    return sum(p.weight for p in preferred if matches(p.preference, node.labels)) + near.points(node)


def _split(asked: Need, node: Candidate) -> float:
    """Return the cost of a machine that no cell takes whole; a node with one cell has no other."""
    if len(node.cells) < 2:  # noqa: PLR2004 -- one cell is the whole node
        return 0.0
    whole = any(cell.cpus >= asked.vcpus and cell.free_bytes >= asked.memory_bytes for cell in node.cells)
    return 0.0 if whole else SPLIT_COST


def _copies(asked: Need, node: Candidate, holders: Holders) -> float:
    if not asked.images:
        return 0.0
    missing = sum(node.name not in holders.get(uid, ()) for uid in asked.images)
    itself = max(asked.vcpus / max(1, node.vcpus), asked.memory_bytes / max(1, node.memory_bytes))
    return COPY_COST * itself * missing / len(asked.images)
