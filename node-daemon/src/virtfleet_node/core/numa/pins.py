"""Which CPUs a guest's threads run on and which cells its memory comes from, by its placement and its neighbours'."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from virtfleet_api.virtual_machine_status import NumaPolicy
from virtfleet_node.core.numa.host import Host, Resident, Wish, own_cpus
from virtfleet_node.core.numa.placement import Placement, guest_cell, split_memory

_MIB: Final = 1 << 20


class MemoryMode(StrEnum):
    """libvirt's modes of <numatune> that are used."""

    RESTRICTIVE = "restrictive"
    """Held by the cgroup alone, the only mode in which libvirt moves the memory of a running guest."""
    STRICT = "strict"
    INTERLEAVE = "interleave"


@dataclass(frozen=True)
class GuestCell:
    """A NUMA cell of the guest."""

    vcpus: frozenset[int]
    memory_bytes: int
    host_cell: int | None = None
    """The host's cell that it is bound to."""


@dataclass(frozen=True)
class SeenPins:
    """Where a running guest runs, as libvirt shows it."""

    vcpus: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """CPUs of the vCPUs that are pinned one by one."""
    default: frozenset[int] | None = None
    """CPUs of all other threads that are not pinned; None for all of the host."""
    emulator: frozenset[int] | None = None
    nodes: frozenset[int] | None = None
    mode: str = ""
    vcpu_count: int = 0
    """vCPUs that the guest may be given."""


NOT_PINNED: Final = SeenPins()


@dataclass(frozen=True)
class Pinning:
    """Where a guest runs on its host."""

    vcpus: tuple[frozenset[int], ...]
    """CPUs of each vCPU, of those that it may be given as well."""
    emulator: frozenset[int]
    """CPUs of QEMU's other threads, which allocate the memory: some are of each cell that it comes from."""
    nodes: frozenset[int] = frozenset()
    """Cells of the memory; none on a host that has but one."""
    mode: MemoryMode = MemoryMode.RESTRICTIVE
    host_cpus: frozenset[int] = frozenset()
    """Where a thread runs of which nothing is said."""


def build_pinning(wish: Wish, placement: Placement, host: Host, others: tuple[Resident, ...] = ()) -> Pinning:
    """Return where a machine runs that lies so, beside others."""
    taken = own_cpus(others) | frozenset(placement.cpus.values())
    shared = {number: _shared(host, number, taken) for number in placement.cells}
    everywhere = frozenset(cpu for cpus in shared.values() for cpu in cpus)

    def cpus_of(vcpu: int) -> frozenset[int]:
        if vcpu in placement.cpus:
            return frozenset((placement.cpus[vcpu],))
        if vcpu in wish.affinity:
            wanted = wish.affinity[vcpu] & host.cpus
            return wanted - taken or wanted or everywhere
        if placement.vnuma:
            return shared[
                placement.cells[guest_cell(vcpu, wish.vcpus, len(placement.cells), grows=wish.spare_vcpus > 0)]
            ]
        return everywhere

    return Pinning(
        vcpus=tuple(cpus_of(vcpu) for vcpu in range(wish.vcpus)),
        emulator=everywhere,
        nodes=frozenset(placement.cells) if len(host.cells) > 1 else frozenset(),
        mode=_mode(wish, placement),
        host_cpus=host.cpus,
    )


def _shared(host: Host, number: int, taken: frozenset[int]) -> frozenset[int]:
    cell = host.by_number.get(number)
    cpus = cell.cpus if cell else host.cpus
    return cpus - taken or cpus


def _mode(wish: Wish, placement: Placement) -> MemoryMode:
    if len(placement.cells) > 1:
        return MemoryMode.STRICT if placement.vnuma else MemoryMode.INTERLEAVE
    return MemoryMode.STRICT if wish.hugepage_bytes else MemoryMode.RESTRICTIVE


def is_everywhere(pinning: Pinning) -> bool:
    """Tell whether a guest runs so when nothing is said of it."""
    return not pinning.nodes and all(cpus == pinning.host_cpus for cpus in (*pinning.vcpus, pinning.emulator))


def build_guest_cells(wish: Wish, placement: Placement | None) -> tuple[GuestCell, ...]:
    """Return the NUMA cells that a guest sees which lies on several of the host's; else none."""
    if placement is None or not placement.vnuma:
        return ()
    count = len(placement.cells)
    memory = split_memory(wish.memory_bytes, count, max(wish.hugepage_bytes or 0, _MIB))
    places = [guest_cell(vcpu, wish.vcpus, count, grows=wish.spare_vcpus > 0) for vcpu in range(wish.vcpus)]
    return tuple(
        GuestCell(frozenset(vcpu for vcpu, place in enumerate(places) if place == index), memory[index], cell)
        for index, cell in enumerate(placement.cells)
    )


def follow_affinity(wish: Wish, placement: Placement, host: Host) -> Placement:
    """Return where a running machine lies once its user has pinned vCPUs, pinned others, or let them go.

    What cannot be changed while it runs stays: guest cells and dedicated CPUs.
    """
    if placement.vnuma or placement.cpus:
        return placement
    cells = host.cells_of(cpu for cpus in wish.affinity.values() for cpu in cpus)
    if cells:
        update: dict[str, object] = {"policy": NumaPolicy.PINNED, "cells": cells}
    elif placement.policy is NumaPolicy.PINNED:
        policy = NumaPolicy.BOUND if len(placement.cells) == 1 else NumaPolicy.SPREAD
        update = {"policy": policy}
    else:
        return placement
    return placement.model_copy(update=update)
