"""Network cards."""

from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import Guest
from virtfleet_node.core.places import card_key


def configure_interfaces(domain: Element, guest: Guest) -> None:
    """Write an <interface> for each card: QEMU's own outbound NAT, which nothing from outside reaches."""
    for interface in guest.hardware.interfaces:
        card = add(devices(domain), "interface", type_="user")
        add(card, "mac", address=interface.mac)
        add(card, "model", type_=interface.model)
        add_port(card, guest, card_key(interface.name))
