"""Which node takes a machine: the best of those that can, or why none can.

Every bound machine counts, whether it runs or not: a machine that was accepted can always be started again.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from virtfleet_operator.core.placement.candidate import (
    ARCH_LABEL,
    HOSTNAME_LABEL,
    Candidate,
    HugepageRoom,
    NodeView,
    PoolRoom,
    allocatable,
    by_name,
    candidate,
    left,
)
from virtfleet_operator.core.placement.explain import explain
from virtfleet_operator.core.placement.filters import refusal
from virtfleet_operator.core.placement.need import Load, Need, Neighbour, load_of, need, neighbour
from virtfleet_operator.core.placement.neighbours import Neighbours
from virtfleet_operator.core.placement.scores import Holders, Strategy, rank
from virtfleet_operator.core.placement.vicinity import vicinity
from virtfleet_operator.core.verdict import Unschedulable

__all__ = [
    "ARCH_LABEL",
    "HOSTNAME_LABEL",
    "Candidate",
    "HugepageRoom",
    "Load",
    "Need",
    "Neighbour",
    "Neighbours",
    "NodeView",
    "Placed",
    "PoolRoom",
    "Strategy",
    "Surroundings",
    "Unschedulable",
    "allocatable",
    "candidate",
    "left",
    "load_of",
    "need",
    "neighbour",
    "place",
]


@dataclass(frozen=True, slots=True)
class Placed:
    """The node that takes the machine."""

    node_name: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else counts beside the nodes: which machines are where, who holds which image, and what is better."""

    neighbours: Neighbours = field(default_factory=Neighbours)
    holders: Holders = field(default_factory=dict)
    strategy: Strategy = Strategy.BALANCED


def place(asked: Need, candidates: Iterable[Candidate], around: Surroundings | None = None) -> Placed | Unschedulable:
    """Choose the best node; see `rank`. The order of the candidates does not matter."""
    around = around or Surroundings()
    nodes = by_name(candidates)
    near = vicinity(asked, nodes, around.neighbours)
    fitting, refusals = [], Counter[str]()
    for node in nodes.values():
        if reason := refusal(asked, node, near):
            refusals[reason] += 1
        else:
            fitting.append(node)
    if not fitting:
        return Unschedulable(explain(len(nodes), refusals))
    return Placed(min(fitting, key=lambda node: rank(asked, node, near, around.strategy, around.holders)).name)
