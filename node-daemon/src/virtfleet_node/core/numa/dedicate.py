"""Which CPUs of the host become a machine's own: one for each vCPU, of the cells that it lies on."""

from collections.abc import Mapping

from virtfleet_node.core.numa.host import Cell, Resident, Wish
from virtfleet_node.core.numa.ledger import KEPT_CPUS, Ledger
from virtfleet_node.core.numa.placement import guest_cell


def dedicate(wish: Wish, group: tuple[Cell, ...], ledger: Ledger) -> dict[int, int] | None:
    """Return a CPU for each vCPU; none when none are asked for, None when they are not to be had.

    Those with the highest numbers come first, since the host's own work gathers on the lowest.
    """
    if not wish.dedicated:
        return {}
    free = {cpu for cell in group for cpu in ledger.free_cpus(cell)}
    allowed = {
        vcpu: sorted(wish.affinity.get(vcpu, _cell_cpus(vcpu, wish, group)) & free, reverse=True)
        for vcpu in range(wish.vcpus)
    }
    chosen = _match(allowed)
    return chosen if chosen is not None and _leaves_enough(frozenset(chosen.values()), group, ledger) else None


def _cell_cpus(vcpu: int, wish: Wish, group: tuple[Cell, ...]) -> frozenset[int]:
    """Return the CPUs of the cell whose turn it is, or of all where some vCPUs are pinned by the user."""
    if wish.affinity:
        return frozenset(cpu for cell in group for cpu in cell.cpus)
    return group[guest_cell(vcpu, wish.vcpus, len(group), grows=wish.spare_vcpus > 0)].cpus


def _match(allowed: Mapping[int, list[int]]) -> dict[int, int] | None:
    """Give each vCPU one of its CPUs, moving others to another of theirs if need be; None when that is impossible."""
    holder: dict[int, int] = {}

    def give(vcpu: int, tried: set[int]) -> bool:
        for cpu in allowed[vcpu]:
            if cpu not in tried:
                tried.add(cpu)
                if cpu not in holder or give(holder[cpu], tried):
                    holder[cpu] = vcpu
                    return True
        return False

    # The most particular first, so that few have to move.
    for vcpu in sorted(allowed, key=lambda vcpu: (len(allowed[vcpu]), vcpu)):
        if not give(vcpu, set()):
            return None
    return dict(sorted((vcpu, cpu) for cpu, vcpu in holder.items()))


def _leaves_enough(chosen: frozenset[int], group: tuple[Cell, ...], ledger: Ledger) -> bool:
    """Tell whether each cell keeps a CPU that is shared, and each vCPU that a user has pinned one of its CPUs."""
    kept = all(len(ledger.shared_cpus(cell) - chosen) >= KEPT_CPUS for cell in group)
    return kept and not any(_is_shut_out(resident, chosen, ledger) for resident in ledger.residents)


def _is_shut_out(resident: Resident, chosen: frozenset[int], ledger: Ledger) -> bool:
    if resident.wish.dedicated:
        return False
    return any(not (cpus - ledger.taken) - chosen for cpus in resident.wish.affinity.values())
