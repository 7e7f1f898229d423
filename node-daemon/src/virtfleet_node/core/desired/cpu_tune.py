"""Limit and shares of the vCPUs together, in libvirt's words: <cputune>, and the parameters of a running guest.

A limit is cut in equal parts for the vCPUs, as users expect of "2 vCPUs at 3 GHz"; and it holds for all that QEMU does,
since its own threads work for the guest as well, and would be a way around the limit (`global_quota`).
"""

from typing import Final

from virtfleet_api.machine import CpuScheduling, Hardware, Machine
from virtfleet_node.core.desired.element import Element, add, section
from virtfleet_node.core.desired.guest import Guest
from virtfleet_node.core.limits import NO_QUOTA, PERIOD, UNLIMITED, CpuQuota
from virtfleet_node.core.observed import Observed
from virtfleet_node.core.record import Stored
from virtfleet_node.core.wanted_compute import wanted_vcpus
from virtfleet_node.core.weights import shares_of, weight_alone

_LONG_PERIOD: Final = 1_000_000
"""The longest that the kernel takes, for limits too small for the other."""

_LEAST_QUOTA: Final = 1_000
"""Microseconds; the kernel takes no less (min_cfs_quota_period)."""

_GREATEST: Final = 2**40
"""From here on a quota is none: libvirt shows the greatest that it can count for a group without one."""


def build_quota(limit_hz: int | None, vcpus: int, frequency_hz: int) -> CpuQuota:
    """Return the quota that keeps all vCPUs together to a limit; none where the frequency is not known."""
    if limit_hz is None or frequency_hz <= 0:
        return NO_QUOTA
    cpus = limit_hz / frequency_hz
    each = cpus / max(1, vcpus)
    period = PERIOD if each * PERIOD >= _LEAST_QUOTA else _LONG_PERIOD
    vcpu = max(_LEAST_QUOTA, round(each * period))
    return CpuQuota(period, vcpu, max(vcpu, round(cpus * period)))


def live_scheduling(desired: Machine, stored: Stored | None) -> CpuScheduling:
    """Return what holds for a running guest: what it was started with, where a change waits for the next start."""
    wanted = desired.hardware.scheduling
    if stored is None or stored.started is None:
        return wanted
    waits = [name for name in CpuScheduling.model_fields if is_deferred(name, desired.hardware)]
    return wanted.model_copy(update={name: getattr(stored.started.scheduling, name) for name in waits})


def is_deferred(name: str, desired: Hardware) -> bool:
    """Tell whether a field of `CpuScheduling` waits for the next start."""
    return f"scheduling.{name}" in desired.deferred


def running_vcpus(desired: Machine, observed: Observed) -> int:
    """Return the vCPUs that a running guest uses, or shall use: those that it only has not given back do not count."""
    seen = observed.domain.vcpus
    plugged = seen.plugged if seen else desired.hardware.vcpus
    return min(plugged, wanted_vcpus(desired.hardware, observed) or plugged)


def configure_cpu_tune(domain: Element, guest: Guest) -> None:
    """Write <cputune>."""
    hardware, host = guest.hardware, guest.facts.cpu
    if host.scale is None:
        return
    tune = section(domain, "cputune")
    add(tune, "shares", str(weight_alone(shares_of(hardware.scheduling, hardware.vcpus), host.scale)))
    quota = build_quota(hardware.scheduling.limit_hz, hardware.vcpus, host.frequency_hz)
    if quota != NO_QUOTA:
        add(tune, "period", str(quota.period))
        add(tune, "quota", str(quota.vcpu))
        add(tune, "global_period", str(quota.period))
        add(tune, "global_quota", str(quota.total))


def parse_quota(domain: Element) -> CpuQuota:
    """Return the quota that a domain shows."""
    vcpu, total = _quota(domain, "quota"), _quota(domain, "global_quota")
    if vcpu == total == UNLIMITED:
        return NO_QUOTA
    return CpuQuota(int(domain.findtext("cputune/period") or PERIOD), vcpu, total)


def _quota(domain: Element, tag: str) -> int:
    value = int(domain.findtext(f"cputune/{tag}") or UNLIMITED)
    return value if 0 < value < _GREATEST else UNLIMITED
