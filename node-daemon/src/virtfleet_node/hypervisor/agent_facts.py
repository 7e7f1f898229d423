"""Ask a guest's agent for facts. It may lie, hang or babble: libvirt bounds the size of an answer, this the time."""

from contextlib import suppress
from typing import Any, Final

import libvirt

from virtfleet_node.core.guest_facts import GuestFacts, parse_guest_facts, parse_online
from virtfleet_node.hypervisor.calls import AGENT_SECONDS

_WANTED: Final = libvirt.VIR_DOMAIN_GUEST_INFO_OS | libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME


def read_guest_facts(connect: libvirt.virConnect, uid: str) -> GuestFacts:
    """Return what the guest agent says; what it does not answer is left out. Blocks for a few times AGENT_SECONDS."""
    domain = connect.lookupByUUIDString(uid)
    domain.agentSetResponseTimeout(AGENT_SECONDS)
    info: dict[str, Any] = {}
    interfaces: dict[str, Any] = {}
    with suppress(libvirt.libvirtError):
        info = domain.guestInfo(_WANTED, 0)
    with suppress(libvirt.libvirtError):
        interfaces = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0)
    return parse_guest_facts(info, interfaces, _ask_vcpus(domain))


def read_guest_vcpus(connect: libvirt.virConnect, uid: str) -> int | None:
    """Return how many vCPUs are online by the guest agent, None when it does not say. Blocks for AGENT_SECONDS."""
    domain = connect.lookupByUUIDString(uid)
    domain.agentSetResponseTimeout(AGENT_SECONDS)
    return parse_online(_ask_vcpus(domain))


def _ask_vcpus(domain: libvirt.virDomain) -> dict[str, Any]:
    try:
        found: dict[str, Any] | None = domain.guestVcpus()
    except libvirt.libvirtError:
        return {}
    return found or {}  # the binding returns None where it ought to raise, such as when libvirtd is killed
