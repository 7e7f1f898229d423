"""What running guests have used of the host's CPUs, where they may run, and what weight they have."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

import libvirt

from virtfleet_node.core.demand import CpuCounters
from virtfleet_node.core.desired.identity import parse_domain_name

_STATS: Final = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_VCPU
_FLAGS: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_WEIGHT: Final = "cpu_shares"


def read_counters(connect: libvirt.virConnect) -> dict[str, CpuCounters]:
    """Return the counters of all running guests, in one call. Blocks."""
    found = connect.getAllDomainStats(_STATS, _FLAGS)
    named = ((parse_domain_name(domain.name()), stats) for domain, stats in found)
    return {uid: parse_counters(stats) for uid, stats in named if uid is not None and "cpu.time" in stats}


def parse_counters(stats: Mapping[str, object]) -> CpuCounters:
    """Return a domain's counters."""
    waited = [int(str(value)) for name, value in stats.items() if name.startswith("vcpu.") and name.endswith(".delay")]
    vcpus = int(str(stats.get("vcpu.current", 1)))
    return CpuCounters(int(str(stats["cpu.time"])), vcpus, sum(waited) if waited else None)


def read_cpu_sets(connect: libvirt.virConnect, uids: Iterable[str]) -> dict[str, frozenset[int]]:
    """Return the CPUs of the host that the vCPUs of guests may run on; of guests that run. Blocks."""
    found = {}
    for uid in uids:
        with suppress(libvirt.libvirtError):  # it has just ended
            pins = connect.lookupByUUIDString(uid).vcpuPinInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE)
            found[uid] = frozenset(cpu for pin in pins for cpu, allowed in enumerate(pin) if allowed)
    return found


def read_weight(connect: libvirt.virConnect, uid: str) -> int | None:
    """Return the weight of a running guest, None when it has just ended. Blocks."""
    try:
        domain = connect.lookupByUUIDString(uid)
        return int(domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)[_WEIGHT])
    except libvirt.libvirtError as error:
        _expect_end(error)
        return None


def write_weight(connect: libvirt.virConnect, uid: str, weight: int) -> None:
    """Give a running guest a weight; nothing when it has just ended. Blocks."""
    try:
        domain = connect.lookupByUUIDString(uid)
        domain.setSchedulerParametersFlags({_WEIGHT: weight}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        _expect_end(error)


def _expect_end(error: libvirt.libvirtError) -> None:
    if error.get_error_code() not in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}:
        raise error
