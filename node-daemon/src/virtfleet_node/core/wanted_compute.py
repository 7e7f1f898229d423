"""The vCPUs and the memory that a running guest shall have now: its document's, unless they wait for the next start.

Each function returns None when nothing is to be changed while the guest runs; `changed_compute` says why.
"""

from typing import Final

from virtfleet_api.machine import Hardware
from virtfleet_node.core.compute import AttachedMemory, AttachedVcpus
from virtfleet_node.core.observed import Observed

CORES: Final = "cores"
MEMORY: Final = "memory_bytes"
"""Names of fields, as `Hardware.deferred` has them."""

_MEBIBYTE: Final = 1 << 20  # QEMU's step of what a guest is started with


def wanted_vcpus(desired: Hardware, observed: Observed) -> int | None:
    """Return the number of vCPUs that the running guest shall have."""
    seen = observed.domain.vcpus
    if seen is None or CORES in desired.deferred or topology_differs(desired, observed):
        return None
    return desired.vcpus if desired.vcpus <= seen.ceiling else None


def wanted_memory(desired: Hardware, observed: Observed) -> int | None:
    """Return the memory in bytes that the running guest shall have."""
    seen = observed.domain.memory
    if seen is None or MEMORY in desired.deferred:
        return None
    wanted = -(-desired.memory_bytes // _MEBIBYTE) * _MEBIBYTE
    return wanted if wanted <= memory_ceiling(seen, observed) else None


def memory_ceiling(seen: AttachedMemory, observed: Observed) -> int:
    """Return the bytes that the guest may have: its device may be larger than what it was started to have at most."""
    started = observed.domain.stored.started if observed.domain.stored else None
    most = started.memory_ceiling_bytes if started else seen.ceiling_bytes
    return max(seen.boot_bytes, min(most, seen.ceiling_bytes))


def topology_differs(desired: Hardware, observed: Observed) -> bool:
    """Tell whether the guest was started with other sockets or threads, which more cores do not make good."""
    started = observed.domain.stored.started if observed.domain.stored else None
    return started is not None and (started.sockets, started.threads) != (desired.sockets, desired.threads)


def current_vcpus(seen: AttachedVcpus, observed: Observed) -> int:
    """Return the vCPUs that the guest uses: those that are online by its agent, or else those that it has."""
    online = observed.guest_vcpus if observed.domain.agent_connected else None
    return seen.plugged if online is None else max(1, min(online, seen.plugged))


def can_unplug(seen: AttachedVcpus, observed: Observed) -> bool:
    """Tell whether QEMU can take vCPUs away: those of a guest that was started with a ceiling, and not emulated."""
    started = observed.domain.stored.started if observed.domain.stored else None
    return not seen.emulated and started is not None and started.max_vcpus is not None
