"""Which machines are where, so that a machine can ask to be near to some and far from others.

Counts are kept by label, so that a question about ten thousand machines costs as much as there are nodes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from virtfleet_api.scheduling import MachineTerm, SelectorOperator
from virtfleet_operator.core.placement.labels import selects
from virtfleet_operator.core.placement.need import Neighbour

Group = tuple[str, frozenset[tuple[str, str]]]
"""Machines that no selector can tell apart: their namespace and labels."""

Place = tuple[str, str, str]
"""Namespace, key and value of a label."""


@dataclass
class _Guard:
    """A term that keeps machines away, and how many machines of each node have it."""

    term: MachineTerm
    nodes: Counter[str] = field(default_factory=Counter)


class Neighbours:
    """The machines of all nodes, as others that are placed see them."""

    def __init__(self) -> None:
        self._groups: defaultdict[Group, Counter[str]] = defaultdict(Counter)
        self._namespaces: defaultdict[str, set[Group]] = defaultdict(set)
        self._labelled: defaultdict[Place, set[Group]] = defaultdict(set)
        self._counts: defaultdict[Place, Counter[str]] = defaultdict(Counter)
        self._guards: defaultdict[str, dict[str, _Guard]] = defaultdict(dict)

    def add(self, node: str, machine: Neighbour) -> None:
        """Count a machine at a node."""
        group = _group(machine)
        self._namespaces[machine.namespace].add(group)
        self._change(node, group, 1)
        for place in _places(group):
            self._labelled[place].add(group)
        for namespace, key, term in _guards(machine):
            self._guards[namespace].setdefault(key, _Guard(term)).nodes[node] += 1

    def remove(self, node: str, machine: Neighbour) -> None:
        """Count a machine no more that was added with the same words."""
        group = _group(machine)
        self._change(node, group, -1)
        if not self._groups[group]:
            del self._groups[group]
            self._namespaces[machine.namespace].discard(group)
            for place in _places(group):
                self._labelled[place].discard(group)
                if not self._labelled[place]:
                    del self._labelled[place], self._counts[place]
        for namespace, key, _ in _guards(machine):
            guard = self._guards[namespace][key]
            _count(guard.nodes, node, -1)
            if not guard.nodes:
                del self._guards[namespace][key]

    def near(self, term: MachineTerm, namespace: str) -> Mapping[str, int]:
        """Return how many machines of each node a term of a machine of this namespace selects."""
        found = Counter[str]()
        for where in term.namespaces or (namespace,):
            for nodes in self._selected(term, where):
                found.update(nodes)
        return found

    def guards(self, machine: Neighbour) -> Iterator[tuple[str, Iterable[str]]]:
        """Yield what keeps a machine away: a label of nodes, and nodes with machines that do not want it near."""
        for guard in self._guards.get(machine.namespace, {}).values():
            if selects(guard.term.label_selector, machine.labels):
                yield guard.term.topology_key, guard.nodes

    def _selected(self, term: MachineTerm, namespace: str) -> Iterator[Mapping[str, int]]:
        """Yield the counts by node of the selected machines, by the shortest way there is to them."""
        selector = term.label_selector
        labels = [(namespace, key, value) for key, value in selector.match_labels.items()]
        if len(labels) == 1 and not selector.match_expressions:
            yield self._counts.get(labels[0], {})
            return
        among = self._namespaces.get(namespace, set())
        for ways in (*([label] for label in labels), *_expressed(term, namespace)):
            groups = set[Group]().union(*(self._labelled.get(way, set()) for way in ways))
            among = min(among, groups, key=len)
        yield from (self._groups[group] for group in among if selects(selector, dict(group[1])))

    def _change(self, node: str, group: Group, sign: int) -> None:
        _count(self._groups[group], node, sign)
        for place in _places(group):
            _count(self._counts[place], node, sign)


def _expressed(term: MachineTerm, namespace: str) -> Iterator[list[Place]]:
    for requirement in term.label_selector.match_expressions:
        if requirement.operator is SelectorOperator.IN:
            yield [(namespace, requirement.key, value) for value in requirement.values]


def _count(counts: Counter[str], node: str, sign: int) -> None:
    counts[node] += sign
    if not counts[node]:
        del counts[node]


def _group(machine: Neighbour) -> Group:
    return machine.namespace, frozenset(machine.labels.items())


def _places(group: Group) -> Iterator[Place]:
    return ((group[0], key, value) for key, value in group[1])


def _guards(machine: Neighbour) -> Iterator[tuple[str, str, MachineTerm]]:
    """Yield the namespaces that a machine keeps others of away, with the term, each once."""
    for term in machine.keeps_away:
        key = term.model_dump_json(exclude={"namespaces"})
        for namespace in dict.fromkeys(term.namespaces or (machine.namespace,)):
            yield namespace, key, term
