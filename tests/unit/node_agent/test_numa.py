"""NUMA at the edges: the host's files, what is told of them, and the pins that are planned."""

from pathlib import Path

import pytest
from lxml import etree
from prometheus_client import CollectorRegistry

from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.report import Hugepages, NumaCell
from virtfleet_api.virtual_machine_status import NumaPolicy
from virtfleet_node.agent.cells import Cells
from virtfleet_node.agent.numa_metrics import NumaMetrics
from virtfleet_node.core.numa.choose import Refused
from virtfleet_node.core.numa.load import CpuTimes, busy_cpus, loads, steady_cells
from virtfleet_node.core.numa.pin import Pin
from virtfleet_node.core.numa.pins import MemoryMode, Pinning, SeenPins
from virtfleet_node.core.numa.placement import Placement
from virtfleet_node.core.observed import DomainState, Observed, ObservedDomain
from virtfleet_node.core.plan_pins import is_memory_elsewhere, plan_pins
from virtfleet_node.core.record import Stored
from virtfleet_node.host.cpu_times import parse_cpu_times
from virtfleet_node.host.numa import read_cells
from virtfleet_node.host.pages import move_pages
from virtfleet_node.hypervisor.pins import parse_pins

GIB = 1 << 30
UID = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0"
MEMINFO = """\
Node {n} MemTotal:       16777216 kB
Node {n} MemFree:         1048576 kB
Node {n} Active(file):     524288 kB
Node {n} Inactive(file):   524288 kB
Node {n} SReclaimable:          0 kB
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host of two cells, of which the second has huge pages."""
    for number, cpus in ((0, "0-3"), (1, "4-7")):
        folder = tmp_path / f"sys/devices/system/node/node{number}"
        for size, total, free in ((2048, 100 * number, 60 * number), (1048576, 0, 0)):
            pages = folder / f"hugepages/hugepages-{size}kB"
            pages.mkdir(parents=True)
            (pages / "nr_hugepages").write_text(f"{total}\n")
            (pages / "free_hugepages").write_text(f"{free}\n")
        (folder / "cpulist").write_text(cpus + "\n")
        (folder / "meminfo").write_text(MEMINFO.format(n=number))
        (folder / "distance").write_text("10 21\n" if number == 0 else "21 10\n")
    return tmp_path


def test_cells_are_read_with_the_cpus_that_may_be_used(root: Path) -> None:
    first, second = read_cells(root, frozenset((1, 2, 4, 5, 6, 7)))
    assert first == NumaCell(
        cell=0, cpus="1-2", memory_bytes=16 * GIB, free_bytes=2 * GIB, distances=(10, 21), load_percent=0
    )
    assert second.cpus == "4-7"
    assert second.hugepages == (Hugepages(page_bytes=2 << 20, total=100, free=60),)
    assert read_cells(root / "nowhere") == ()


def test_the_load_of_cells_is_counted_from_the_kernels_ticks(root: Path) -> None:
    ticks = "cpu  9 9\ncpu0 {} 0 0 {} 0 0 0 0 5 0\ncpu4 0 0 0 0 0 0 0 0\nintr 1\n"
    before, now = (parse_cpu_times(ticks.format(*figures)) for figures in ((100, 100), (130, 110)))
    assert now[0] == CpuTimes(130, 110)
    cells = read_cells(root, frozenset(range(8)))
    assert busy_cpus(cells, before, now) == {0: 0.75, 1: 0.0}
    assert loads({"a": 10.0, "b": 5.0}, {"a": 30.0, "c": 1.0}, 10.0) == {"a": 2.0}
    assert loads({"a": 10.0}, {"a": 30.0}, 0.0) == {}


def test_an_idle_host_tells_nothing(root: Path) -> None:
    told = read_cells(root, frozenset(range(8)))

    def seen(**figures: int) -> tuple[NumaCell, ...]:
        return steady_cells(told, (told[0].model_copy(update=figures), told[1]))

    assert seen(free_bytes=2 * GIB + 800 * 2**20, load_percent=19) == told
    assert seen(free_bytes=3 * GIB)[0].free_bytes == 3 * GIB
    assert seen(load_percent=20)[0].load_percent == 20


def test_metrics_tell_of_each_cell(root: Path) -> None:
    registry = CollectorRegistry()
    NumaMetrics(registry, lambda: read_cells(root, frozenset(range(8))), lambda: 3)
    assert registry.get_sample_value("virtfleet_node_numa_moves_total") == 3
    assert registry.get_sample_value("virtfleet_node_numa_free_bytes", {"cell": "0"}) == 2 * GIB
    assert registry.get_sample_value("virtfleet_node_numa_load", {"cell": "1"}) == 0
    labels = {"cell": "1", "page_bytes": str(2 << 20)}
    assert registry.get_sample_value("virtfleet_node_numa_free_hugepages", labels) == 60


def test_memory_of_a_process_that_has_ended_is_left_alone() -> None:
    assert not move_pages(2**22 + 1, {0}, {0}), "beyond the highest pid that Linux gives"


FOUR = frozenset(range(4))
EIGHT = frozenset(range(8))
XML = """<domain><vcpu cpuset='0-3' current='1'>3</vcpu>
<cputune><vcpupin vcpu='0' cpuset='0-3'/><vcpupin vcpu='1' cpuset='1'/><emulatorpin cpuset='0-3'/></cputune>
<numatune><memory mode='restrictive' nodeset='0'/></numatune></domain>"""


def observed(seen: SeenPins, wanted: Pinning) -> Observed:
    return Observed(ObservedDomain(DomainState.RUNNING, pins=seen), pinning=wanted)


def test_only_what_differs_is_pinned_and_memory_moves_last() -> None:
    seen = parse_pins(etree.fromstring(XML))
    assert seen == SeenPins({0: FOUR, 1: frozenset((1,))}, FOUR, FOUR, frozenset((0,)), "restrictive", 3)
    wanted = Pinning((FOUR, FOUR, FOUR, FOUR), FOUR, frozenset((0,)), host_cpus=EIGHT)
    (pin,) = plan_pins(observed(seen, wanted))
    assert pin == Pin(((1, FOUR),)), "the guest has three vCPUs, and the third runs by the default"
    there = EIGHT - FOUR
    moved = Pinning((there, there, there), there, frozenset((1,)), host_cpus=EIGHT)
    (pin,) = plan_pins(observed(seen, moved))
    assert str(pin) == "pin vCPU 0 to 4-7, vCPU 1 to 4-7, vCPU 2 to 4-7, emulator to 4-7, memory to cells 1"


def test_memory_that_cannot_be_moved_waits_for_the_next_start() -> None:
    cells = frozenset((0, 1))
    seen = SeenPins({}, EIGHT, EIGHT, cells, "interleave", 1)
    spread = Pinning((EIGHT,), EIGHT, cells, MemoryMode.INTERLEAVE, EIGHT)
    assert not list(plan_pins(observed(seen, spread)))
    assert not is_memory_elsewhere(observed(seen, spread))
    bound = Pinning((FOUR,), FOUR, frozenset((0,)), MemoryMode.RESTRICTIVE, EIGHT)
    (pin,) = plan_pins(observed(seen, bound))
    assert pin == Pin(((0, FOUR),), FOUR)
    assert is_memory_elsewhere(observed(seen, bound))


def test_a_guest_of_which_nothing_is_said_runs_everywhere() -> None:
    assert not list(plan_pins(observed(SeenPins(vcpu_count=1), Pinning((EIGHT,), EIGHT, host_cpus=EIGHT))))
    assert not list(plan_pins(Observed(ObservedDomain(DomainState.RUNNING))))


def running(hardware: Hardware, placement: Placement) -> ObservedDomain:
    machine = Machine(uid=UID, namespace="shop", name="web", run=Run.RUNNING, hardware=hardware)
    stored = Stored(desired=machine, started=hardware, placement=placement)
    return ObservedDomain(DomainState.RUNNING, stored=stored)


def test_neighbours_are_told_when_cpus_become_somebodys_own(root: Path) -> None:
    told: list[int] = []
    cells = Cells(lambda: read_cells(root, frozenset(range(8))))
    cells.subscribe(lambda: told.append(1))
    plain, greedy = Hardware(memory_bytes=GIB), Hardware(memory_bytes=GIB, cores=3, dedicated_cpus=True)
    here = Placement(policy=NumaPolicy.BOUND, cells=(0,))
    cells.see("shared", plain, running(plain, here))
    assert not told
    taken = cells.reserve("owner", greedy)
    assert isinstance(taken, Placement)
    assert taken.cells == (1,)
    assert len(told) == 1
    also = cells.reserve("second", greedy)
    assert isinstance(also, Placement)
    assert also.cells == (0,)
    pinning = cells.pinning("shared")
    assert pinning is not None
    assert pinning.vcpus == (frozenset((0,)),)
    assert isinstance(cells.offer("third", greedy), Refused)
    # A look at a machine that is off does not end its start; its end does.
    cells.see("owner", greedy, ObservedDomain(DomainState.OFF))
    assert cells.placement("owner") == taken
    cells.release("owner")
    cells.see("owner", greedy, ObservedDomain(DomainState.OFF))
    assert cells.placement("owner") is None
    assert isinstance(cells.offer("third", greedy), Placement)
    assert len(told) == 3


def test_a_host_without_cells_places_nothing() -> None:
    cells, hardware = Cells(), Hardware(memory_bytes=GIB)
    assert cells.reserve("a", hardware) is None
    cells.see("a", hardware, running(hardware, Placement(policy=NumaPolicy.BOUND, cells=(0,))))
    assert cells.pinning("a") is None
