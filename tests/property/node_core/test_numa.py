"""Where machines are started on hosts with NUMA cells, against the rules, on hundreds of made-up hosts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from numa_strategies import GIB, MIB2, bound, crowded, hosts, wishes
from virtfleet_api.virtual_machine_status import NumaPolicy
from virtfleet_node.core.numa.choose import Refused, choose_cells, fits
from virtfleet_node.core.numa.cpu_set import format_cpus, parse_cpus
from virtfleet_node.core.numa.host import Cell, Host, Pages, Resident, Wish, own_cpus
from virtfleet_node.core.numa.ledger import KEPT_CPUS, Ledger
from virtfleet_node.core.numa.pins import MemoryMode, build_guest_cells, build_pinning, follow_affinity, is_everywhere
from virtfleet_node.core.numa.placement import Placement

cases = crowded().flatmap(lambda made: st.tuples(st.just(made[0]), st.just(made[1]), wishes(made[0])))

Case = tuple[Host, tuple[Resident, ...], Wish]


@given(st.frozensets(st.integers(0, 300)))
def test_cpu_sets_are_written_and_read(cpus: frozenset[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == cpus


def a_machine_that_fits_a_cell_lies_on_the_least_loaded_one(case: Case) -> None:
    host, residents, wish = case
    wish = Wish(wish.vcpus, wish.memory_bytes)
    ledger, placed = Ledger(host, residents), choose_cells(wish, host, residents)
    assert isinstance(placed, Placement), "an ordinary machine is never refused"
    fitting = [cell for cell in host.cells if fits(wish, ledger, cell)]
    if not fitting:
        return
    assert placed.policy is NumaPolicy.BOUND
    (chosen,) = (host.by_number[number] for number in placed.cells)
    assert chosen in fitting
    cpu, memory = ledger.cpu_share(chosen), ledger.memory_share(chosen, wish.memory_bytes)
    for other in fitting:
        # Cells of a host have as many CPUs, so what the machine adds is the same; memory may differ.
        better = ledger.cpu_share(other) < cpu and ledger.memory_share(other, wish.memory_bytes) < memory
        assert not better, "another cell has more of both"


def a_machine_larger_than_a_cell_is_spread_evenly_over_the_fewest_that_take_it(case: Case) -> None:
    host, residents, wish = case
    wish = Wish(wish.vcpus, wish.memory_bytes)
    ledger, placed = Ledger(host, residents), choose_cells(wish, host, residents)
    assert isinstance(placed, Placement)
    count = len(placed.cells)
    for fewer in range(1, count):
        assert sum(fits(wish, ledger, cell, fewer) for cell in host.cells) < fewer
    if count == 1:
        return
    assert placed.policy is NumaPolicy.SPREAD
    cells = build_guest_cells(wish, placed)
    assert bool(cells) is placed.vnuma
    if cells:
        assert [cell.host_cell for cell in cells] == list(placed.cells)
        sizes = [cell.memory_bytes for cell in cells]
        assert sum(sizes) == -(-wish.memory_bytes // (1 << 20)) * (1 << 20)
        assert max(sizes) - min(sizes) <= 1 << 20
        parts = [len(cell.vcpus) for cell in cells]
        assert max(parts) - min(parts) <= 1
        assert frozenset().union(*(cell.vcpus for cell in cells)) == frozenset(range(wish.vcpus))
    else:
        assert build_pinning(wish, placed, host, residents).mode is MemoryMode.INTERLEAVE or len(host.cells) == 1


def pinned_machines_have_their_memory_where_their_cpus_are(case: Case) -> None:
    host, residents, wish = case
    placed = choose_cells(wish, host, residents)
    if not wish.affinity or isinstance(placed, Refused):
        return
    named = frozenset(cpu for cpus in wish.affinity.values() for cpu in cpus)
    assert placed.policy is NumaPolicy.PINNED
    assert placed.cells == host.cells_of(named)
    pinning = build_pinning(wish, placed, host, residents)
    for vcpu, cpus in wish.affinity.items():
        assert pinning.vcpus[vcpu] <= cpus
        assert pinning.vcpus[vcpu]
    if len(host.cells) > 1:
        assert pinning.nodes == frozenset(placed.cells)
        assert (pinning.mode is MemoryMode.INTERLEAVE) is (len(placed.cells) > 1)


def dedicated_cpus_are_exclusive_and_each_cell_keeps_one_that_is_shared(case: Case) -> None:
    host, residents, wish = case
    placed = choose_cells(wish, host, residents)
    if isinstance(placed, Refused):
        assert wish.dedicated or wish.hugepage_bytes or wish.affinity
        assert placed.message
        return
    everybody = (*residents, Resident("new", wish, placed, starting=True))
    owned = [cpu for resident in everybody for cpu in resident.placement.cpus.values()]
    assert len(owned) == len(set(owned)), "a CPU has two owners"
    for cell in host.cells:
        assert not cell.cpus & set(owned) or len(cell.cpus - set(owned)) >= KEPT_CPUS
    for resident in everybody:
        others = tuple(r for r in everybody if r is not resident)
        pinning = build_pinning(resident.wish, resident.placement, host, others)
        assert not pinning.emulator & set(owned)
        assert {cell for cell in resident.placement.cells if host.by_number[cell].cpus & pinning.emulator} == set(
            resident.placement.cells
        ), "QEMU's threads reach every cell that they allocate memory of"
        for vcpu, cpus in enumerate(pinning.vcpus):
            assert cpus
            if resident.wish.dedicated:
                assert cpus == {resident.placement.cpus[vcpu]}
            else:
                assert not cpus & own_cpus(others)


def huge_pages_are_there_where_a_machine_is_put(case: Case) -> None:
    host, residents, wish = case
    placed = choose_cells(wish, host, residents)
    if isinstance(placed, Refused) or wish.hugepage_bytes is None:
        return
    everybody = (*residents, Resident("new", wish, placed, starting=True))
    for cell in host.cells:
        promised = sum(
            -(-r.wish.memory_bytes // len(r.placement.cells) // MIB2)
            for r in everybody
            if r.starting and r.wish.hugepage_bytes and cell.number in r.placement.cells
        )
        assert promised <= cell.hugepages[MIB2].free


@settings(max_examples=300)
@given(cases)
def test_every_rule_holds_on_hundreds_of_hosts(case: Case) -> None:
    a_machine_that_fits_a_cell_lies_on_the_least_loaded_one(case)
    a_machine_larger_than_a_cell_is_spread_evenly_over_the_fewest_that_take_it(case)
    pinned_machines_have_their_memory_where_their_cpus_are(case)
    dedicated_cpus_are_exclusive_and_each_cell_keeps_one_that_is_shared(case)
    huge_pages_are_there_where_a_machine_is_put(case)


@given(hosts(least=2), st.data())
def test_machines_that_start_at_once_see_each_other(host: Host, data: st.DataObject) -> None:
    idle = Host(tuple(Cell(c.number, c.cpus, 16 * GIB, 16 * GIB, distances=c.distances) for c in host.cells))
    wish = Wish(vcpus=data.draw(st.integers(1, len(idle.cells[0].cpus))), memory_bytes=GIB)
    residents: tuple[Resident, ...] = ()
    for number in range(len(idle.cells)):
        placed = choose_cells(wish, idle, residents)
        assert isinstance(placed, Placement)
        residents = (*residents, Resident(str(number), wish, placed, starting=True))
    assert sorted(r.placement.cells[0] for r in residents) == [cell.number for cell in idle.cells]


@given(hosts(), st.data())
def test_a_running_machine_follows_its_user(host: Host, data: st.DataObject) -> None:
    wish = data.draw(wishes(host))
    cells = tuple(cell.number for cell in host.cells)
    before = Placement(policy=NumaPolicy.BOUND, cells=cells[:1])
    after = follow_affinity(wish, before, host)
    if not wish.affinity:
        assert after == before
        return
    assert after.cells == host.cells_of(cpu for cpus in wish.affinity.values() for cpu in cpus)
    free = follow_affinity(Wish(wish.vcpus, wish.memory_bytes), after, host)
    assert free.cells == after.cells
    assert free.policy is (NumaPolicy.BOUND if len(after.cells) == 1 else NumaPolicy.SPREAD)


def two_cells(**more: object) -> Host:
    cells = (frozenset((0, 1, 2, 3)), frozenset((4, 5, 6, 7)))
    return Host(tuple(Cell(n, cpus, 8 * GIB, 8 * GIB, distances=(10, 20), **more) for n, cpus in enumerate(cells)))


def test_one_cell_and_no_wishes_is_said_by_saying_nothing() -> None:
    host = Host((Cell(0, frozenset((0, 1)), GIB, GIB),))
    wish = Wish(4, 8 * GIB)
    placed = choose_cells(wish, host)
    assert placed == bound(0)
    assert is_everywhere(build_pinning(wish, placed, host))
    owner = Resident("x", Wish(1, GIB, dedicated=True), Placement(policy=NumaPolicy.BOUND, cells=(0,), cpus={0: 1}))
    beside = build_pinning(wish, placed, host, (owner,))
    assert not is_everywhere(beside)
    assert beside.vcpus[0] == beside.emulator == {0}


def test_refusals_say_what_there_is() -> None:
    host = two_cells(hugepages={MIB2: Pages(10, 10)})
    for wish, reason, words in (
        (
            Wish(1, GIB, hugepage_bytes=MIB2),
            "WaitingForHugepages",
            "512 huge pages of 2Mi are needed, and there are 10",
        ),
        (Wish(9, GIB, dedicated=True), "WaitingForCpus", "9 CPUs are to be dedicated, and there are 3 in cell 0"),
        (Wish(1, GIB, affinity={0: frozenset((99,))}), "WaitingForCpus", "vCPU 0 is pinned to CPUs 99, and this node"),
    ):
        refused = choose_cells(wish, host)
        assert isinstance(refused, Refused)
        assert refused.reason == reason
        assert words in refused.message
