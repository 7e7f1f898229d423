"""Network cards."""

from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import Guest


def configure_interfaces(domain: Element, guest: Guest) -> None:
    """Write an <interface> for each card: QEMU's own outbound NAT, which nothing from outside reaches."""
    for interface in guest.hardware.interfaces:
        card = add(devices(domain), "interface", type_="user")
        add(card, "mac", address=interface.mac)
        add(card, "model", type_=interface.model)
