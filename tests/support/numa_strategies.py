"""Hosts with NUMA cells, machines on them, and machines that ask for a place."""

from collections.abc import Iterable

from hypothesis import strategies as st

from virtfleet_api.virtual_machine_status import NumaPolicy
from virtfleet_node.core.numa.choose import Refused, choose_cells
from virtfleet_node.core.numa.host import Cell, Host, Pages, Resident, Wish
from virtfleet_node.core.numa.placement import Placement

GIB = 1 << 30
MIB2 = 2 << 20


@st.composite
def hosts(draw: st.DrawFn, least: int = 1, most: int = 4) -> Host:
    """Return a host whose CPUs are numbered as firmware does: by cell, or in turn."""
    count, each = draw(st.integers(least, most)), draw(st.integers(1, 8))
    in_turn = draw(st.booleans())
    cells = []
    for number in range(count):
        cpus = range(number, count * each, count) if in_turn else range(number * each, (number + 1) * each)
        memory = draw(st.integers(2, 16)) * GIB
        pages = draw(st.integers(0, memory // MIB2 // 2))
        free_pages = draw(st.integers(0, pages))
        ordinary = memory - pages * MIB2
        cells.append(
            Cell(
                number=number,
                cpus=frozenset(cpus),
                memory_bytes=memory,
                free_bytes=draw(st.integers(0, ordinary)),
                hugepages={MIB2: Pages(pages, free_pages)},
                busy=draw(st.floats(0, each)),
                distances=tuple(10 if other == number else 20 + abs(other - number) for other in range(count)),
            )
        )
    return Host(tuple(cells))


@st.composite
def wishes(draw: st.DrawFn, host: Host, *, plain: bool = False) -> Wish:
    vcpus = draw(st.integers(1, 10))
    pinned = {} if plain else draw(st.dictionaries(st.integers(0, vcpus - 1), cpu_sets(host), max_size=3))
    return Wish(
        vcpus=vcpus,
        memory_bytes=draw(st.integers(1, 24 * 4)) * GIB // 4,
        hugepage_bytes=None if plain else draw(st.sampled_from((None, None, MIB2))),
        dedicated=False if plain else draw(st.booleans()),
        affinity=pinned if draw(st.booleans()) else {},
    )


def cpu_sets(host: Host) -> st.SearchStrategy[frozenset[int]]:
    return st.frozensets(st.sampled_from(sorted(host.cpus)), min_size=1, max_size=4)


def crowd(host: Host, wanted: Iterable[tuple[Wish, float | None]]) -> tuple[Resident, ...]:
    """Return those of the machines that find a place, one after the other."""
    residents: tuple[Resident, ...] = ()
    for number, (wish, load) in enumerate(wanted):
        placed = choose_cells(wish, host, residents)
        if not isinstance(placed, Refused):
            residents = (*residents, Resident(f"vm-{number}", wish, placed, starting=load is None, load=load))
    return residents


@st.composite
def crowded(draw: st.DrawFn, *, plain: bool = False, least: int = 1) -> tuple[Host, tuple[Resident, ...]]:
    host = draw(hosts(least))
    loads = st.none() | st.floats(0, 4)
    wanted = draw(st.lists(st.tuples(wishes(host, plain=plain), loads), max_size=6))
    return host, crowd(host, wanted)


def bound(cell: int) -> Placement:
    return Placement(policy=NumaPolicy.BOUND, cells=(cell,))
