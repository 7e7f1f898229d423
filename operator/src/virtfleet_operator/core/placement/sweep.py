"""Which of the machines that wait for room get some, when something has changed.

Machines that ask the same are asked about once: when the first of them still finds no room, no other does. So the
work is bounded by what has come free and by how many different things are asked, not by how many machines wait.
"""

from collections.abc import Hashable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Generic, TypeVar

from virtfleet_operator.core.place import Surroundings, place
from virtfleet_operator.core.placement.candidate import Candidate, by_name, with_machine
from virtfleet_operator.core.placement.need import Need, Neighbour
from virtfleet_operator.core.verdict import Unschedulable

K = TypeVar("K", bound=Hashable)

LOOKS_AT_ONCE: Final = 32
"""Places that are sought before others get their turn: with two hundred nodes that is about 30 ms."""


@dataclass(frozen=True, slots=True)
class Waiter(Generic[K]):
    """A machine that waits for room: what it asks, and what it was told."""

    key: K
    need: Need
    told: str
    shape: str = field(init=False)
    """A word that is equal for machines that ask the same. Images decide between nodes, and refuse none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", repr(replace(self.need, images=frozenset())))


@dataclass(frozen=True, slots=True)
class Sweep(Generic[K]):
    """Who finds room, whose reason has changed, and who has not been asked about yet."""

    fitting: tuple[K, ...]
    outdated: tuple[K, ...]
    rest: tuple[Waiter[K], ...]
    looks: int
    """How often a place was sought."""


def sweep(
    waiters: Sequence[Waiter[K]],
    candidates: Iterable[Candidate],
    around: Surroundings,
    refused: MutableMapping[str, str],
) -> Sweep[K]:
    """Go through the machines that wait, the first one first, and give away what room there is.

    `refused` is what is known of those that were asked about before, by shape, and is added to.
    """
    nodes = dict(by_name(candidates))
    fitting: list[K] = []
    outdated: list[K] = []
    given: list[tuple[str, Neighbour]] = []
    looks = done = 0
    for waiter in waiters:
        if (known := refused.get(waiter.shape)) is None:
            if looks == LOOKS_AT_ONCE:
                break
            looks += 1
            known = _seek(waiter, nodes, around, given)
        if known is None:
            fitting.append(waiter.key)
        else:
            refused[waiter.shape] = known
            outdated.extend([waiter.key] if known != waiter.told else [])
        done += 1
    for name, itself in given:  # they are not there yet
        around.neighbours.remove(name, itself)
    return Sweep(tuple(fitting), tuple(outdated), tuple(islice(waiters, done, None)), looks)


def _seek(
    waiter: Waiter[K], nodes: dict[str, Candidate], around: Surroundings, given: list[tuple[str, Neighbour]]
) -> str | None:
    """Return why there is no room; None when there was some, which is then taken."""
    answer = place(waiter.need, nodes.values(), around)
    if isinstance(answer, Unschedulable):
        return answer.message
    name = answer.node_name
    nodes[name] = with_machine(nodes[name], waiter.need)
    around.neighbours.add(name, waiter.need.itself)
    given.append((name, waiter.need.itself))
    return None
