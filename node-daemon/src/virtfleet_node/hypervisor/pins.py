"""Pin a running guest's threads and move its memory; read where they are. Everything here blocks."""

from collections.abc import Iterable
from typing import Final

import libvirt
from lxml import etree

from virtfleet_node.core.desired.identity import parse_domain_name
from virtfleet_node.core.numa.cpu_set import format_cpus, parse_cpus
from virtfleet_node.core.numa.pin import Pin
from virtfleet_node.core.numa.pins import SeenPins

_LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE


def pin(connect: libvirt.virConnect, uid: str, action: Pin) -> None:
    """Pin the threads, then have the memory moved. It is where it shall be when this returns (cpuset.mems).

    Of a guest that has ended nothing is done.
    """
    domain = connect.lookupByUUIDString(uid)
    if not domain.isActive():
        return
    for vcpu, cpus in action.vcpus:
        domain.pinVcpuFlags(vcpu, _map(cpus), _LIVE)
    if action.emulator is not None:
        domain.pinEmulator(_map(action.emulator), _LIVE)
    if action.nodes is not None:
        mode = libvirt.VIR_DOMAIN_NUMATUNE_MEM_RESTRICTIVE
        domain.setNumaParameters({"numa_nodeset": format_cpus(action.nodes), "numa_mode": mode}, _LIVE)


def read_cpu_seconds(connect: libvirt.virConnect) -> dict[str, float]:
    """Return the CPU time of all running guests by machine, in one call."""
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    found = connect.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_CPU_TOTAL, flags)
    named = ((parse_domain_name(domain.name()), stats) for domain, stats in found)
    return {uid: stats["cpu.time"] / 1e9 for uid, stats in named if uid is not None and "cpu.time" in stats}


def parse_pins(xml: etree._Element) -> SeenPins:
    """Return where the guest of a domain's XML runs."""
    pins = xml.findall("cputune/vcpupin")
    vcpu, memory = xml.find("vcpu"), xml.find("numatune/memory")
    return SeenPins(
        vcpus={int(pin.get("vcpu", "0")): parse_cpus(pin.get("cpuset", "")) for pin in pins},
        default=_cpus(vcpu, "cpuset"),
        emulator=_cpus(xml.find("cputune/emulatorpin"), "cpuset"),
        nodes=_cpus(memory, "nodeset"),
        mode="" if memory is None else memory.get("mode", ""),
        vcpu_count=int(xml.findtext("vcpu", "0")),
    )


def _cpus(element: etree._Element | None, name: str) -> frozenset[int] | None:
    text = None if element is None else element.get(name)
    return None if text is None else parse_cpus(text)


def _map(cpus: Iterable[int]) -> tuple[bool, ...]:
    wanted = frozenset(cpus)
    return tuple(cpu in wanted for cpu in range(max(wanted) + 1))
