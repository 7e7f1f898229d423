"""The host's NUMA cells and the machines on them, as values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from virtfleet_api.machine import Hardware
from virtfleet_api.report import NumaCell
from virtfleet_node.core.numa.cpu_set import parse_cpus
from virtfleet_node.core.numa.placement import Placement


@dataclass(frozen=True)
class Pages:
    """Huge pages of one size in a cell."""

    total: int
    free: int


@dataclass(frozen=True)
class Cell:
    """A NUMA cell."""

    number: int
    cpus: frozenset[int]
    """Those that the daemon may use."""
    memory_bytes: int
    free_bytes: int
    hugepages: Mapping[int, Pages] = field(default_factory=dict)
    """By size in bytes."""
    busy: float = 0.0
    """CPUs' worth of work that was measured, of machines and of everything else."""
    distances: tuple[int, ...] = ()
    """To each cell of the host in the order of their numbers; 10 to itself."""

    @property
    def ordinary_bytes(self) -> int:
        """Return the memory that is not set aside for huge pages."""
        return self.memory_bytes - sum(size * pages.total for size, pages in self.hugepages.items())


@dataclass(frozen=True)
class Host:
    """Cells with CPUs; a cell that has memory alone takes no machine."""

    cells: tuple[Cell, ...] = ()

    @cached_property
    def cpus(self) -> frozenset[int]:
        """Return all CPUs that machines may use."""
        return frozenset(cpu for cell in self.cells for cpu in cell.cpus)

    @cached_property
    def by_number(self) -> dict[int, Cell]:
        """Return the cells by their numbers."""
        return {cell.number: cell for cell in self.cells}

    def cells_of(self, cpus: Iterable[int]) -> tuple[int, ...]:
        """Return the numbers of the cells that have these CPUs."""
        wanted = frozenset(cpus)
        return tuple(cell.number for cell in self.cells if cell.cpus & wanted)


@dataclass(frozen=True)
class Wish:
    """What a machine asks of the host's CPUs and memory."""

    vcpus: int
    """Those that it may be given as well."""
    memory_bytes: int
    hugepage_bytes: int | None = None
    dedicated: bool = False
    affinity: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """CPUs by vCPU, as the user wants them."""
    spare_vcpus: int = 0
    """vCPUs that it is not started with."""
    immovable: bool = False
    """A device holds the memory where it is."""

    @property
    def used_vcpus(self) -> int:
        """Return the vCPUs that CPUs are looked for: all of them, if each needs its own."""
        return self.vcpus if self.dedicated else self.vcpus - self.spare_vcpus

    @property
    def is_plain(self) -> bool:
        """Tell whether nothing is asked but a number of vCPUs and memory."""
        return not (self.dedicated or self.affinity or self.hugepage_bytes)


@dataclass(frozen=True)
class Resident:
    """A machine that lies on the host, or is being started."""

    uid: str
    wish: Wish
    placement: Placement
    starting: bool = False
    """It has its place, and perhaps not its memory yet."""
    load: float | None = None
    """CPUs' worth of work that its guest does; None before it was measured."""

    @property
    def own_cpus(self) -> frozenset[int]:
        """Return its dedicated CPUs."""
        return frozenset(self.placement.cpus.values())


def own_cpus(residents: Iterable[Resident]) -> frozenset[int]:
    """Return the CPUs that are dedicated to any of them."""
    return frozenset(cpu for resident in residents for cpu in resident.own_cpus)


def build_host(cells: Iterable[NumaCell], busy: Mapping[int, float] | None = None) -> Host:
    """Return the host of an inventory; `busy` is the work of each cell's CPUs."""
    found = (
        Cell(
            number=cell.cell,
            cpus=parse_cpus(cell.cpus),
            memory_bytes=cell.memory_bytes,
            free_bytes=cell.free_bytes,
            hugepages={pages.page_bytes: Pages(pages.total, pages.free) for pages in cell.hugepages},
            busy=(busy or {}).get(cell.cell, 0.0),
            distances=cell.distances,
        )
        for cell in cells
    )
    return Host(tuple(cell for cell in found if cell.cpus))


def build_wish(hardware: Hardware) -> Wish:
    """Return what a document asks of the host."""
    affinity = {vcpu: parse_cpus(cpus) for vcpu, cpus in hardware.affinity.items() if vcpu < hardware.vcpu_ceiling}
    return Wish(
        vcpus=hardware.vcpu_ceiling,
        spare_vcpus=hardware.vcpu_ceiling - hardware.vcpus,
        memory_bytes=hardware.memory_bytes,
        hugepage_bytes=hardware.hugepage_bytes,
        dedicated=hardware.dedicated_cpus,
        affinity=affinity,
        immovable=bool(hardware.devices),
    )
