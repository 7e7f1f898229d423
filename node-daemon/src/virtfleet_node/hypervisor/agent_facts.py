"""Ask a guest's agent for facts. It may lie, hang or babble: libvirt bounds the size of an answer, this the time."""

from collections.abc import Callable
from typing import Any, Final

import libvirt

from virtfleet_node.core.guest_facts import GuestFacts, parse_guest_facts, parse_online
from virtfleet_node.hypervisor.calls import AGENT_SECONDS

_WANTED: Final = libvirt.VIR_DOMAIN_GUEST_INFO_OS | libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME

_SILENT: Final = frozenset({libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED})


def read_guest_facts(connect: libvirt.virConnect, uid: str) -> GuestFacts:
    """Return what the guest agent says; what it does not answer is left out. Blocks for some times AGENT_SECONDS."""
    domain = connect.lookupByUUIDString(uid)
    domain.agentSetResponseTimeout(AGENT_SECONDS)
    source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
    info, interfaces, vcpus = _ask(
        lambda: domain.guestInfo(_WANTED, 0), lambda: domain.interfaceAddresses(source, 0), domain.guestVcpus
    )
    return parse_guest_facts(info, interfaces, vcpus)


def read_guest_vcpus(connect: libvirt.virConnect, uid: str) -> int | None:
    """Return how many vCPUs are online by the guest agent, None when it does not say. Blocks for AGENT_SECONDS."""
    domain = connect.lookupByUUIDString(uid)
    domain.agentSetResponseTimeout(AGENT_SECONDS)
    return parse_online(*_ask(domain.guestVcpus))


def _ask(*questions: Callable[[], dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Return an answer to each question; after one that got no answer in time no other is asked.

    Whoever has to tell the agent something more urgent, as to thaw, waits for these.
    """
    answers: list[dict[str, Any]] = [{} for _ in questions]
    for number, question in enumerate(questions):
        try:
            answers[number] = question() or {}  # the binding returns None where it ought to raise: libvirtd was killed
        except libvirt.libvirtError as error:
            if error.get_error_code() in _SILENT:
                break
    return answers
