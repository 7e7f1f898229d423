"""The PCI Express ports that devices sit on."""

from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import DomainType, Guest


def add_port(element: Element, guest: Guest, device: str) -> None:
    """Write the port of a device; machine types without PCI Express have libvirt choose."""
    if guest.is_q35 and guest.facts.domain_type is not DomainType.TEST:
        bus = guest.places.ports[device]
        add(element, "address", type_="pci", domain="0x0000", bus=f"0x{bus:02x}", slot="0x00", function="0x0")
