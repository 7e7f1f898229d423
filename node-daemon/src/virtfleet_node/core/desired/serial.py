"""The serial console, and the guest agent's channel."""

from typing import Final

from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, Guest

AGENT_CHANNEL: Final = "org.qemu.guest_agent.0"
"""Fixed by the QEMU guest agent."""


def configure_serial(domain: Element, guest: Guest) -> None:
    """Write the serial console. Its log is bounded by virtlogd (max_size and max_backups in virtlogd.conf)."""
    serial = add(devices(domain), "serial", type_="pty")
    if guest.facts.domain_type is not DomainType.TEST:
        add(serial, "log", file=str(guest.paths.console_log), append="on")
    add(serial, "target", type_="isa-serial", port=0)


def configure_agent_channel(domain: Element, guest: Guest) -> None:
    """Write the channel of the guest agent, when the machine wants one."""
    if guest.hardware.guest_agent:
        channel = add(devices(domain), "channel", type_="unix")
        add(channel, "target", type_="virtio", name=AGENT_CHANNEL)
