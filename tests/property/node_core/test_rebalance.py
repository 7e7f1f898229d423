"""Moves between NUMA cells over an hour of made-up load, without a host."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numa_strategies import GIB, bound
from virtfleet_node.core.numa.host import Cell, Host, Resident, Wish
from virtfleet_node.core.numa.rebalance import ALONE_SECONDS, REST_SECONDS, Balance, Move, rebalance

STEP = 10.0
HOUR = 3600.0
CPUS = 8

Load = Callable[[float], float]
"""CPUs that a machine wants at a time."""


@dataclass
class Simulation:
    """A host of cells whose CPUs are shared out by what machines want."""

    loads: dict[str, Load]
    cells_of: dict[str, int]
    count: int = 2
    noise: random.Random = field(default_factory=lambda: random.Random(1))
    moves: list[tuple[float, Move]] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    def run(self, seconds: float = HOUR) -> "Simulation":
        balance, now = Balance(), 0.0
        while now <= seconds:
            host, residents = self.look(now)
            self.peaks.append(max(cell.busy / CPUS for cell in host.cells))
            balance, move = rebalance(host, residents, balance, now)
            if move is not None:
                assert self.cells_of[move.uid] == move.source
                self.cells_of[move.uid] = move.target
                self.moves.append((now, move))
            now += STEP
        return self

    def look(self, now: float) -> tuple[Host, tuple[Resident, ...]]:
        wanted = {uid: max(0.0, load(now) + self.noise.gauss(0, 0.1)) for uid, load in self.loads.items()}
        sums = [sum(wanted[uid] for uid, cell in self.cells_of.items() if cell == n) for n in range(self.count)]
        squeeze = [min(1.0, CPUS / total) if total else 1.0 for total in sums]
        cells = tuple(
            Cell(n, frozenset(range(n * CPUS, (n + 1) * CPUS)), 64 * GIB, 64 * GIB, busy=min(CPUS, sums[n]))
            for n in range(self.count)
        )
        residents = tuple(
            Resident(uid, Wish(4, GIB), bound(cell), load=wanted[uid] * squeeze[cell])
            for uid, cell in self.cells_of.items()
        )
        return Host(cells), residents


def steady(cpus: float) -> Load:
    return lambda _: cpus


def square(cpus: float, period: float, shift: float = 0.0) -> Load:
    return lambda now: cpus if ((now + shift) // period) % 2 else 0.1


def test_a_crowded_cell_is_relieved_once() -> None:
    loads = {f"vm-{n}": steady(3.5) for n in range(4)}
    done = Simulation(loads, dict.fromkeys(loads, 0)).run()
    assert sorted(done.cells_of.values()) == [0, 0, 1, 1]
    assert len(done.moves) == 2
    assert all(move.source == 0 for _, move in done.moves)
    assert done.moves[0][0] <= 120, "within two minutes"


def test_one_busy_machine_is_not_carried_about() -> None:
    done = Simulation({"busy": steady(8), "idle": steady(0.1)}, {"busy": 0, "idle": 1}).run()
    assert done.moves == []


def test_a_host_that_is_not_busy_is_left_alone() -> None:
    loads = {f"vm-{n}": steady(1.0) for n in range(5)}
    assert Simulation(loads, dict.fromkeys(loads, 0)).run().moves == []


@pytest.mark.parametrize("period", [20.0, 60.0, 120.0, 300.0, 600.0])
def test_waves_do_not_rock_the_host(period: float) -> None:
    """Machines that work by turns look unbalanced at any moment; nothing may swing with them."""
    loads = {f"a-{n}": square(4, period) for n in range(3)} | {f"b-{n}": square(4, period, period) for n in range(3)}
    done = Simulation(loads, {uid: int(uid[0] == "b") for uid in loads}).run()
    assert len(done.moves) <= 6, "at most one an hour for each machine"
    assert len([at for at, _ in done.moves if at > HOUR / 2]) <= 2, "it learns"
    assert_calm(done)


def test_a_move_that_makes_it_worse_is_undone_and_not_tried_again() -> None:
    """A machine that wants three times as much once it has been moved, and its old neighbour hardly anything."""
    loads: dict[str, Load] = {"one": steady(3.2), "two": steady(3)}
    done = Simulation(loads, {"one": 0, "two": 0})
    moved: list[str] = []

    def hungry(uid: str, before: float) -> Load:
        return lambda _: 8.0 if done.cells_of[uid] == 1 else before

    loads.update(one=hungry("one", 3.2), two=hungry("two", 3))
    moved = [move.message for _, move in done.run().moves]
    assert [text.partition(" from")[0] for text in moved] == ["Moved", "Moved back", "Moved", "Moved back"]
    assert sorted(move.uid for _, move in done.moves) == ["one", "one", "two", "two"], "each is tried once"
    assert set(done.cells_of.values()) == {0}
    assert_calm(done)


def assert_calm(done: Simulation) -> None:
    """Nothing moves twice within the time that it is to be left alone, but back; nor two in one period of rest."""
    times = [at for at, _ in done.moves]
    assert all(later - earlier >= REST_SECONDS for earlier, later in itertools.pairwise(times))
    last: dict[str, float] = {}
    for at, move in done.moves:
        if move.uid in last and not move.message.startswith("Moved back"):
            assert at - last[move.uid] >= ALONE_SECONDS
        last[move.uid] = at


shapes = st.one_of(
    st.builds(steady, st.floats(0, 6)),
    st.builds(square, st.floats(0, 6), st.sampled_from((30.0, 90.0, 240.0, 900.0)), st.floats(0, 900)),
)


@settings(max_examples=20)
@given(st.lists(st.tuples(shapes, st.integers(0, 2)), min_size=1, max_size=9), st.integers(2, 3))
def test_an_hour_of_any_load_is_calm(made: list[tuple[Load, int]], count: int) -> None:
    loads = {f"vm-{n}": load for n, (load, _) in enumerate(made)}
    done = Simulation(loads, {f"vm-{n}": cell % count for n, (_, cell) in enumerate(made)}, count).run()
    assert_calm(done)
    assert len(done.moves) <= 3 * len(made)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 4), st.integers(0, 1)), min_size=1, max_size=9))
def test_steady_load_comes_to_rest(made: list[tuple[float, int]]) -> None:
    """Each move lowers the peak and no machine moves twice, so the moves end."""
    loads = {f"vm-{n}": steady(cpus) for n, (cpus, _) in enumerate(made)}
    done = Simulation(loads, {f"vm-{n}": cell for n, (_, cell) in enumerate(made)}).run()
    assert len({move.uid for _, move in done.moves}) == len(done.moves), "nothing is moved twice"
    tail = len(done.peaks) // 4
    assert sum(done.peaks[-tail:]) <= sum(done.peaks[:tail]) + 0.05 * tail


def look(gain: float, **wish: object) -> Move | None:
    """Return the move after a long time of the same load: a busy neighbour, and one that might go."""
    cells = tuple(Cell(n, frozenset((2 * n, 2 * n + 1)), 8 * GIB, 8 * GIB, busy=(2.0, 0.0)[n]) for n in (0, 1))
    resident = Resident("one", replace(Wish(1, GIB), **wish), bound(0), load=gain)
    heavy = Resident("two", Wish(1, GIB, dedicated=True), bound(0), load=1.0)
    balance = Balance()
    for tick in range(12):
        balance, move = rebalance(Host(cells), (resident, heavy), balance, tick * STEP)
        if move:
            return move
    return None


def test_only_what_may_be_moved_is_moved() -> None:
    assert look(1.0)
    assert look(1.0, memory_bytes=64 * GIB) is None, "no room there"
    assert look(1.0, hugepage_bytes=2 << 20) is None
    assert look(1.0, affinity={0: frozenset((0,))}) is None, "the user has pinned it"
    assert look(1.0, immovable=True) is None
    assert look(0.1) is None, "it would hardly help"


def test_one_cell_has_nothing_to_move_to() -> None:
    host = Host((Cell(0, frozenset((0,)), GIB, GIB, busy=1.0),))
    assert rebalance(host, (Resident("x", Wish(1, GIB), bound(0), load=1.0),), Balance(), 0.0) == (Balance(), None)
