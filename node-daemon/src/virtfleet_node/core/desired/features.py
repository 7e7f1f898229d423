"""Firmware features, the clock, and what follows when the guest ends."""

from typing import Final

from virtfleet_api.machine import Hardware
from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import DomainType, Guest

TCG_CACHE_MIB: Final = 32
"""QEMU's default is 1 GiB of translated code for every guest; 32 MiB costs a small guest no time and saves 100 MB."""

TCG_GROWING_CACHE_MIB: Final = 128
TCG_CACHE_MIB_PER_VCPU: Final = 8
"""Of a guest that may be given vCPUs: each takes a part of the cache that no other has begun, see `tcg_cache`."""

_TIMERS: Final = ({"name": "rtc", "tickpolicy": "catchup"}, {"name": "pit", "tickpolicy": "delay"})


def configure_features(domain: Element, guest: Guest) -> None:
    """Write <features>."""
    features = add(domain, "features")
    add(features, "acpi")
    add(features, "apic")
    if guest.facts.domain_type is DomainType.QEMU:
        add(add(features, "tcg"), "tb-cache", str(_tcg_cache(guest.hardware)), unit="MiB")


def _tcg_cache(hardware: Hardware) -> int:
    if hardware.vcpu_ceiling == hardware.vcpus:
        return TCG_CACHE_MIB
    return max(TCG_GROWING_CACHE_MIB, TCG_CACHE_MIB_PER_VCPU * hardware.vcpu_ceiling)


def configure_clock(domain: Element, guest: Guest) -> None:
    """Write <clock>. With KVM guests keep time by kvmclock: HPET would only cost exits."""
    clock = add(domain, "clock", offset="utc")
    if guest.facts.domain_type is DomainType.KVM:
        for timer in _TIMERS:
            add(clock, "timer", **timer)
        add(clock, "timer", name="hpet", present="no")


def configure_lifecycle(domain: Element, guest: Guest) -> None:
    """Write what libvirt does when the guest ends: nothing, since restarting is the plan's decision.

    A guest that panicked is held: once it is off, libvirt cannot tell a panic from a QEMU that was killed.
    """
    del guest  # the same for every guest
    add(domain, "on_poweroff", "destroy")
    add(domain, "on_reboot", "restart")
    add(domain, "on_crash", "preserve")
