"""What the machines on a host have been promised, cell by cell, and what that leaves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from virtfleet_node.core.numa.host import Cell, Host, Resident, Wish, own_cpus

KEPT_CPUS: Final = 1
"""CPUs of a cell that are never dedicated: QEMU's own threads, and those of machines that share, need a place there."""


@dataclass(frozen=True)
class Ledger:
    """A host with those that lie on it."""

    host: Host
    residents: tuple[Resident, ...] = ()

    @property
    def taken(self) -> frozenset[int]:
        """Return the CPUs that are somebody's own."""
        return own_cpus(self.residents)

    def shared_cpus(self, cell: Cell) -> frozenset[int]:
        """Return the CPUs of a cell that are nobody's own."""
        return cell.cpus - self.taken

    def free_cpus(self, cell: Cell) -> frozenset[int]:
        """Return the CPUs that may be dedicated, were it not for the one that is kept: no user has pinned a vCPU there.

        A vCPU pinned to several CPUs needs one of them.
        """
        return self.shared_cpus(cell) - self._only_cpus()

    def _only_cpus(self) -> frozenset[int]:
        pinned = (
            cpus - self.taken for r in self.residents if not r.wish.dedicated for cpus in r.wish.affinity.values()
        )
        return frozenset(cpu for cpus in pinned if len(cpus) == 1 for cpu in cpus)

    def room_bytes(self, cell: Cell, wish: Wish) -> int:
        """Return the memory of the wished kind that a cell still has."""
        if wish.hugepage_bytes is None:
            promised = sum(_part(r) for r in self._on(cell) if r.wish.hugepage_bytes is None)
            return max(0, min(cell.ordinary_bytes - promised, cell.free_bytes))
        pages = cell.hugepages.get(wish.hugepage_bytes)
        starting = (r for r in self._on(cell) if r.starting and r.wish.hugepage_bytes == wish.hugepage_bytes)
        return max(0, (pages.free if pages else 0) * wish.hugepage_bytes - sum(_part(r) for r in starting))

    def cpu_share(self, cell: Cell, more: float = 0.0) -> float:
        """Return how busy a cell's CPUs are or will be, as a share; a machine whose load is unknown counts in full."""
        unknown = sum(_vcpus(r) for r in self._on(cell) if r.load is None)
        return (cell.busy + unknown + more) / len(cell.cpus)

    def memory_share(self, cell: Cell, more: float = 0.0) -> float:
        """Return which share of a cell's memory is promised."""
        return (sum(_part(r) for r in self._on(cell)) + more) / max(1, cell.memory_bytes)

    def vcpu_share(self, cell: Cell) -> float:
        """Return the promised vCPUs by CPU."""
        return sum(_vcpus(r) for r in self._on(cell)) / len(cell.cpus)

    def _on(self, cell: Cell) -> Iterable[Resident]:
        return (resident for resident in self.residents if cell.number in resident.placement.cells)


def _part(resident: Resident) -> int:
    return -(-resident.wish.memory_bytes // len(resident.placement.cells))


def _vcpus(resident: Resident) -> float:
    return resident.wish.used_vcpus / len(resident.placement.cells)
