"""What of vCPUs and memory waits for the next start, or for the guest, and why."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from virtfleet_api.machine import Hardware
from virtfleet_api.quantity import Bytes
from virtfleet_node.core.compute import AttachedMemory, AttachedVcpus
from virtfleet_node.core.due import balloon_key, memory_key, plug_key, unplug_key, vcpus_key
from virtfleet_node.core.memory_target import memory_target
from virtfleet_node.core.observed import HOLDS_AFTER, Observed
from virtfleet_node.core.wanted_compute import (
    CORES,
    MEMORY,
    can_unplug,
    current_vcpus,
    memory_ceiling,
    topology_differs,
    wanted_memory,
    wanted_vcpus,
)

AT_RESTART: Final = "its VMClass changes machines when they restart"

_PLAIN: Final = {
    "sockets": "cpu.sockets",
    "threads": "cpu.threads",
    "max_vcpus": "cpu.maxVcpus",
    "max_memory_bytes": "memory.max",
}


def compute_fields(started: Hardware, desired: Hardware, observed: Observed) -> Iterator[str]:
    """Yield the spec fields of vCPUs and memory that take effect at the next start, with why in parentheses."""
    yield from (word for name, word in _PLAIN.items() if getattr(started, name) != getattr(desired, name))
    if observed.domain.vcpus is not None:
        yield from _vcpus(desired, observed.domain.vcpus, observed)
    elif started.cores != desired.cores:
        yield "cpu.cores"
    if observed.domain.memory is not None:
        yield from _memory(desired, observed.domain.memory, observed)
    elif started.memory_bytes != desired.memory_bytes:
        yield "memory.guest"


def _vcpus(desired: Hardware, seen: AttachedVcpus, observed: Observed) -> Iterator[str]:
    current, wanted = current_vcpus(seen, observed), desired.vcpus
    if wanted in {current, seen.plugged} and CORES in desired.deferred:
        return
    if CORES in desired.deferred:
        yield f"cpu.cores ({AT_RESTART})"
    elif topology_differs(desired, observed):
        return  # sockets or threads are named already
    elif wanted > seen.ceiling:
        yield f"cpu.cores ({wanted} vCPUs, and the running guest can have {seen.ceiling})"
    elif wanted < current and not can_unplug(seen, observed) and not observed.domain.agent_connected:
        yield "cpu.cores (vCPUs are taken back by the guest agent, which does not answer)"


def _memory(desired: Hardware, seen: AttachedMemory, observed: Observed) -> Iterator[str]:
    wanted, ceiling = desired.memory_bytes, memory_ceiling(seen, observed)
    if MEMORY in desired.deferred:
        if wanted not in {seen.current_bytes, _requested(seen)}:
            yield f"memory.guest ({AT_RESTART})"
    elif wanted > ceiling:
        yield f"memory.guest ({Bytes(wanted)}, and the running guest can have {Bytes(ceiling)})"


def _requested(seen: AttachedMemory) -> int:
    """Return what the guest would have if it took all that it has been offered."""
    return seen.boot_bytes + seen.dimm_bytes + (seen.device.requested_bytes if seen.device else 0)


def held_compute(desired: Hardware, observed: Observed, now: datetime) -> tuple[str, ...]:
    """Return, as clauses, what the guest has been asked to take or give back of vCPUs and memory, and has not."""
    return (*_held_vcpus(desired, observed, now), *_held_memory(desired, observed, now))


def _held_vcpus(desired: Hardware, observed: Observed, now: datetime) -> Iterator[str]:
    seen, wanted = observed.domain.vcpus, wanted_vcpus(desired, observed)
    if seen is None or wanted is None:
        return
    current = current_vcpus(seen, observed)
    if seen.plugged < wanted and _asked_long_ago((plug_key(wanted),), observed, now):
        yield f"QEMU has no room for the code of {wanted} emulated vCPUs just now, and runs {seen.plugged}"
    elif current != wanted and _asked_long_ago((vcpus_key(wanted), unplug_key(wanted)), observed, now):
        yield f"it uses {current} vCPUs where it shall use {wanted}"


def _held_memory(desired: Hardware, observed: Observed, now: datetime) -> Iterator[str]:
    seen, wanted = observed.domain.memory, wanted_memory(desired, observed)
    if seen is None or wanted is None:
        return
    target = memory_target(wanted, seen, refused=False)
    level = seen.boot_bytes + seen.dimm_bytes - target.balloon_bytes
    keys = (memory_key(target.requested_bytes), balloon_key(level), *target.detach)
    off = seen.current_bytes - wanted
    step = seen.device.block_bytes if seen.device else 1
    if (off >= step or off < 0) and _asked_long_ago(keys, observed, now):
        yield f"it has {_mebibytes(seen.current_bytes)} of memory where it shall have {Bytes(wanted)}"


def _asked_long_ago(keys: tuple[str, ...], observed: Observed, now: datetime) -> bool:
    return any((asking := observed.asked.get(key)) and now >= asking.first + HOLDS_AFTER for key in keys)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes >> 20}Mi"
