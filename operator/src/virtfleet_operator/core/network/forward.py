"""How a node itself reaches the guests that it runs: from which address of their switch, and by which port."""

from ipaddress import IPv6Address, ip_address, ip_interface
from typing import Final

from virtfleet_api.machine import ForwardPath, Machine
from virtfleet_operator.core.network.names import forward_port
from virtfleet_operator.core.network.subnets import Range
from virtfleet_operator.core.network.switch import forward_mac
from virtfleet_operator.core.network.topology import IpAddress, PortPlan, SwitchPlan

_LINK_LOCAL: Final = IPv6Address("fe80::")
_LINK_LOCAL_LENGTH: Final = 64
_UNIVERSAL: Final = 0x02
"""The bit of a MAC address that its interface identifier has the other way round (RFC 4291, appendix A)."""


def forwarder_of(switch: str, given: Range) -> IpAddress | None:
    """Return the address from which nodes reach guests of a subnet; None when it has none to give."""
    if given.network.version == 6:  # noqa: PLR2004 -- IP's version
        return link_local(forward_mac(switch))
    return None if given.forwarder is None else ip_address(given.forwarder)


def link_local(mac: str) -> IPv6Address:
    """Return the link-local address that is made from a MAC address."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ _UNIVERSAL]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return _LINK_LOCAL + int.from_bytes(identifier)


def find_forward(port: PortPlan, switch: SwitchPlan) -> ForwardPath | None:
    """Return how a node reaches a card; None without a managed address, or an address to reach it from.

    IPv4 comes first: a guest that has both answers to it even when nobody has told it how to use IPv6.
    """
    for subnet in sorted(switch.subnets, key=lambda subnet: subnet.network.version):
        target = next((address for address in port.addresses if address in subnet.network), None)
        if target is not None and subnet.forwarder is not None:
            length = subnet.network.prefixlen if subnet.forwarder in subnet.network else _LINK_LOCAL_LENGTH
            return ForwardPath(
                port=forward_port(port.switch, port.vlan),
                mac=forward_mac(port.switch),
                source=ip_interface(f"{subnet.forwarder}/{length}"),
                target=target,
            )
    return None


def with_forwards(document: Machine, paths: dict[str, ForwardPath | None]) -> Machine:
    """Return a document with how the node reaches each card, by the card's name."""
    cards = tuple(card.model_copy(update={"forward": paths.get(card.name)}) for card in document.hardware.interfaces)
    hardware = document.hardware.model_copy(update={"interfaces": cards})
    return document.model_copy(update={"hardware": hardware})
