"""What the operator tells a node of the network: the physical networks to connect, and who the other nodes are."""

from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.network import IP_PATTERN
from virtfleet_api.virtual_switch import INTERFACE_PATTERN

IpAddress = Annotated[str, Field(pattern=IP_PATTERN, max_length=45)]


class UplinkNetwork(Document):
    """A physical network, as OVN's localnet ports name it."""

    network_name: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9_.-]{0,62}$")]
    interface: Annotated[str, Field(pattern=INTERFACE_PATTERN)]


class NodeNetwork(Document):
    """All of it; what is not in it is taken away again."""

    uplinks: Annotated[tuple[UplinkNetwork, ...], Field(max_length=64)] = ()
    peers: Annotated[tuple[IpAddress, ...], Field(max_length=2000)] = ()
    """Addresses of the fleet's nodes, of their tunnels and of the operators: whom the node's firewall lets in."""


def uplink_network_name(interface: str) -> str:
    """Return the name by which OVN knows the physical network on this interface."""
    return f"uplink-{interface}"
