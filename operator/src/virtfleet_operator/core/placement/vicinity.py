"""What a machine's affinity to other machines means for each node, worked out once for all nodes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from virtfleet_api.scheduling import MachineAffinity, MachineTerm
from virtfleet_operator.core.placement.candidate import HOSTNAME_LABEL, Candidate
from virtfleet_operator.core.placement.labels import selects
from virtfleet_operator.core.placement.need import Need, Neighbour
from virtfleet_operator.core.placement.neighbours import Neighbours

NOT_NEAR: Final = "not near the machines of its vmAffinity"
TOO_NEAR: Final = "near a machine of its vmAntiAffinity"
UNWANTED: Final = "near a machine whose vmAntiAffinity keeps it away"


@dataclass(frozen=True, slots=True)
class Vicinity:
    """Values of labels that a node must have, must not have, or should have. What is near is on an equal value."""

    must: tuple[tuple[str, frozenset[str] | None], ...] = ()
    """By label; None for any value."""
    must_not: tuple[tuple[str, frozenset[str], str], ...] = ()
    """By label, with the reason."""
    better: tuple[tuple[str, Mapping[str, int]], ...] = field(default=())
    """Points by value, by label."""

    def refusal(self, node: Candidate) -> str:
        """Return why the machines that are there, or not there, keep the machine off a node; or nothing."""
        if not self.must and not self.must_not:
            return ""
        for key, values in self.must:
            value = domain(node, key)
            if value is None or (values is not None and value not in values):
                return NOT_NEAR
        return next((reason for key, values, reason in self.must_not if domain(node, key) in values), "")

    def points(self, node: Candidate) -> int:
        """Return how much better a node is for the machines that are near it."""
        return sum(points.get(domain(node, key) or "", 0) for key, points in self.better)


def vicinity(asked: Need, nodes: Mapping[str, Candidate], neighbours: Neighbours) -> Vicinity:
    """Work out what the machines that have a node mean for one that has none."""
    near = asked.affinity.vm_affinity if asked.affinity else None
    far = asked.affinity.vm_anti_affinity if asked.affinity else None
    namespace = asked.itself.namespace
    apart = [(t.topology_key, neighbours.near(t, namespace), TOO_NEAR) for t in (far.required if far else ())]
    unwanted = [(key, names, UNWANTED) for key, names in neighbours.guards(asked.itself)]
    return Vicinity(
        must=tuple(_must(term, asked.itself, nodes, neighbours) for term in (near.required if near else ())),
        must_not=tuple((key, _domains(key, names, nodes), reason) for key, names, reason in (*apart, *unwanted)),
        better=(*_better(near, 1, namespace, nodes, neighbours), *_better(far, -1, namespace, nodes, neighbours)),
    )


def domain(node: Candidate, key: str) -> str | None:
    """Return a node's value of a label that says what is near."""
    return node.labels.get(key, node.name if key == HOSTNAME_LABEL else None)


def _must(
    term: MachineTerm, itself: Neighbour, nodes: Mapping[str, Candidate], neighbours: Neighbours
) -> tuple[str, frozenset[str] | None]:
    """Return where a required term holds. The first of machines that seek each other may go anywhere."""
    found = neighbours.near(term, itself.namespace)
    seeks_itself = itself.namespace in (term.namespaces or (itself.namespace,))
    if not found and seeks_itself and selects(term.label_selector, itself.labels):
        return term.topology_key, None
    return term.topology_key, _domains(term.topology_key, found, nodes)


def _domains(key: str, names: Iterable[str], nodes: Mapping[str, Candidate]) -> frozenset[str]:
    values = (domain(nodes[name], key) for name in names if name in nodes)
    return frozenset(value for value in values if value is not None)


def _better(
    affinity: MachineAffinity | None,
    sign: int,
    namespace: str,
    nodes: Mapping[str, Candidate],
    neighbours: Neighbours,
) -> Iterable[tuple[str, Mapping[str, int]]]:
    for preferred in affinity.preferred if affinity else ():
        key, points = preferred.term.topology_key, Counter[str]()
        for name, count in neighbours.near(preferred.term, namespace).items():
            value = domain(nodes[name], key) if name in nodes else None
            if value is not None:
                points[value] += sign * preferred.weight * count
        yield key, points
