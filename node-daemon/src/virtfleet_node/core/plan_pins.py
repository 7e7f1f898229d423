"""Whether a running guest's threads and memory are where they shall be, as the action that brings them there."""

from collections.abc import Iterator

from virtfleet_node.core.numa.pin import Pin
from virtfleet_node.core.numa.pins import MemoryMode, Pinning, SeenPins
from virtfleet_node.core.observed import Observed


def plan_pins(observed: Observed) -> Iterator[Pin]:
    """Yield the action that pins what runs elsewhere, if anything does.

    CPUs come before memory: a guest whose memory arrives finds its threads there, and a daemon that dies in between
    sees which of them it has moved.
    """
    wanted, seen = observed.pinning, observed.domain.pins
    if wanted is None:
        return
    vcpus = tuple(_vcpus(wanted, seen))
    emulator = wanted.emulator if _or(seen.emulator, seen.default, wanted.host_cpus) != wanted.emulator else None
    nodes = wanted.nodes if is_memory_movable(wanted, seen) and seen.nodes != wanted.nodes else None
    if vcpus or emulator is not None or nodes is not None:
        yield Pin(vcpus, emulator, nodes)


def _vcpus(wanted: Pinning, seen: SeenPins) -> Iterator[tuple[int, frozenset[int]]]:
    for vcpu, cpus in enumerate(wanted.vcpus[: seen.vcpu_count]):
        if _or(seen.vcpus.get(vcpu), seen.default, wanted.host_cpus) != cpus:
            yield vcpu, cpus


def is_memory_movable(wanted: Pinning, seen: SeenPins) -> bool:
    """Tell whether the memory of a running guest can be brought to where it shall be."""
    return bool(wanted.nodes) and wanted.mode is MemoryMode.RESTRICTIVE and seen.mode == MemoryMode.RESTRICTIVE


def is_memory_elsewhere(observed: Observed) -> bool:
    """Tell whether the guest's memory gets to where it shall be at the next start only."""
    wanted, seen = observed.pinning, observed.domain.pins
    if wanted is None or not wanted.nodes or is_memory_movable(wanted, seen):
        return False
    return (seen.mode, seen.nodes) != (wanted.mode, wanted.nodes)


def _or(*found: frozenset[int] | None) -> frozenset[int]:
    return next((cpus for cpus in found if cpus is not None), frozenset())
