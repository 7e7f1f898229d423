"""On which cells a machine is started: the least loaded one that fits, else the fewest that do, in equal parts.

A machine whose vCPUs the user has pinned lies where those CPUs are. Huge pages and dedicated CPUs are there or not, so
a machine may be refused for them; any other is started, as on a host without cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Final

from virtfleet_api.virtual_machine_status import NumaPolicy
from virtfleet_node.core.numa.cpu_set import format_cpus
from virtfleet_node.core.numa.dedicate import dedicate
from virtfleet_node.core.numa.host import Cell, Host, Resident, Wish
from virtfleet_node.core.numa.ledger import KEPT_CPUS, Ledger
from virtfleet_node.core.numa.placement import Placement

WAITING_FOR_CPUS: Final = "WaitingForCpus"
WAITING_FOR_HUGEPAGES: Final = "WaitingForHugepages"

_MOST_GROUPS: Final = 1000
"""Groups of cells that are compared; 8 cells have 70 of four. Beyond, the least loaded ones are taken."""

_UNITS: Final = ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"))


@dataclass(frozen=True)
class Refused:
    """Why a machine cannot be started now."""

    reason: str
    message: str


def choose_cells(wish: Wish, host: Host, residents: tuple[Resident, ...] = ()) -> Placement | Refused:
    """Return where a machine is started on a host that has cells; the same input gives the same place."""
    ledger = Ledger(host, residents)
    if wish.affinity:
        return _pinned(wish, ledger)
    for count in range(1, len(host.cells) + 1):
        for group in _groups(wish, ledger, count):
            if (cpus := dedicate(wish, group, ledger)) is not None:
                return _placed(wish, tuple(cell.number for cell in group), cpus)
    return _refuse(wish, ledger) or Placement(
        policy=NumaPolicy.SPREAD if len(host.cells) > 1 else NumaPolicy.BOUND,
        cells=tuple(cell.number for cell in host.cells),
    )


def _placed(wish: Wish, cells: tuple[int, ...], cpus: dict[int, int]) -> Placement:
    spread = len(cells) > 1
    return Placement(
        policy=NumaPolicy.SPREAD if spread else NumaPolicy.BOUND,
        cells=tuple(sorted(cells)),
        vnuma=spread and wish.used_vcpus >= len(cells),
        cpus=cpus,
    )


def _groups(wish: Wish, ledger: Ledger, count: int) -> Iterator[tuple[Cell, ...]]:
    """Yield the groups of so many cells that fit, the least loaded and nearest first."""
    fitting = [cell for cell in ledger.host.cells if fits(wish, ledger, cell, count)]
    fitting.sort(key=lambda cell: (*strain(wish, ledger, cell, count), cell.number))
    if comb(len(fitting), count) > _MOST_GROUPS:
        fitting = fitting[:count]
    groups = list(combinations(sorted(fitting, key=lambda cell: cell.number), count))
    strains = {cell.number: strain(wish, ledger, cell, count) for cell in fitting}
    groups.sort(key=lambda group: (max(strains[cell.number] for cell in group), _apart(group, ledger.host)))
    yield from groups


def fits(wish: Wish, ledger: Ledger, cell: Cell, count: int = 1) -> bool:
    """Tell whether a cell can take its part of a machine that lies on so many cells."""
    vcpus = -(-wish.used_vcpus // count)
    room = len(ledger.free_cpus(cell)) if wish.dedicated else len(ledger.shared_cpus(cell))
    if wish.dedicated:
        room = min(room, len(ledger.shared_cpus(cell)) - KEPT_CPUS)
    return vcpus <= room and _part_bytes(wish, count) <= ledger.room_bytes(cell, wish)


def _part_bytes(wish: Wish, count: int) -> int:
    page = wish.hugepage_bytes or 1
    return -(-wish.memory_bytes // (count * page)) * page


def strain(wish: Wish, ledger: Ledger, cell: Cell, count: int = 1) -> tuple[float, float]:
    """Return how full a cell is with its part of the machine: the scarcer of CPUs and memory, then vCPUs promised."""
    cpu = ledger.cpu_share(cell, wish.used_vcpus / count)
    return max(cpu, ledger.memory_share(cell, wish.memory_bytes / count)), ledger.vcpu_share(cell)


def _apart(group: tuple[Cell, ...], host: Host) -> int:
    """Return the distances within a group."""
    order = {cell.number: index for index, cell in enumerate(host.cells)}
    indices = [order[cell.number] for cell in group]
    return sum(cell.distances[index] for cell in group for index in indices if index < len(cell.distances))


def _pinned(wish: Wish, ledger: Ledger) -> Placement | Refused:
    """Return the cells of the CPUs that the user names."""
    host, taken = ledger.host, ledger.taken
    for vcpu, cpus in sorted(wish.affinity.items()):
        where = f"vCPU {vcpu} is pinned to CPUs {format_cpus(cpus)}"
        if not cpus & host.cpus:
            there = f"this node has {format_cpus(host.cpus)}: name some of those in spec.cpu.affinity."
            return Refused(WAITING_FOR_CPUS, f"{where}, and {there}")
        if not (cpus & host.cpus) - taken:
            return Refused(WAITING_FOR_CPUS, f"{where}, which are dedicated to other machines.")
    cells = host.cells_of(cpu for cpus in wish.affinity.values() for cpu in cpus)
    group = tuple(host.by_number[number] for number in cells)
    short = wish.hugepage_bytes and [c for c in group if _part_bytes(wish, len(group)) > ledger.room_bytes(c, wish)]
    cpus_of = dedicate(wish, group, ledger)
    if short or cpus_of is None:
        return _refuse(wish, ledger, group) or Refused(WAITING_FOR_CPUS, "The CPUs are not free.")
    return Placement(policy=NumaPolicy.PINNED, cells=cells, cpus=cpus_of)


def _refuse(wish: Wish, ledger: Ledger, group: tuple[Cell, ...] = ()) -> Refused | None:
    """Return why the machine must wait; None when it need not."""
    cells = group or ledger.host.cells
    if wish.hugepage_bytes is not None:
        needed = -(-wish.memory_bytes // wish.hugepage_bytes)
        free = {cell.number: ledger.room_bytes(cell, wish) // wish.hugepage_bytes for cell in cells}
        if sum(free.values()) < needed or not wish.dedicated:
            said = ", ".join(f"{count} in cell {number}" for number, count in free.items())
            text = f"{needed} huge pages of {_size(wish.hugepage_bytes)} are needed, and there are {said} free."
            return Refused(WAITING_FOR_HUGEPAGES, text)
    if wish.dedicated:
        free = {
            cell.number: max(0, min(len(ledger.free_cpus(cell)), len(ledger.shared_cpus(cell)) - KEPT_CPUS))
            for cell in cells
        }
        said = ", ".join(f"{count} in cell {number}" for number, count in free.items())
        text = f"{wish.vcpus} CPUs are to be dedicated, and there are {said}; one of each cell stays shared."
        return Refused(WAITING_FOR_CPUS, text)
    return None


def _size(count: int) -> str:
    unit, word = next((unit, word) for unit, word in _UNITS if count % unit == 0)
    return f"{count // unit}{word}"
