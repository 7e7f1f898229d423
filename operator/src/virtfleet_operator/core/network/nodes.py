"""What each node is told of the network."""

from collections.abc import Iterable
from ipaddress import ip_address

from virtfleet_api.node_network import NodeNetwork, UplinkNetwork, uplink_network_name
from virtfleet_api.virtual_switch import VirtualSwitch


def compile_node_network(switches: Iterable[VirtualSwitch], addresses: Iterable[str]) -> NodeNetwork:
    """Compile the document: every physical network that a switch names, and the addresses of the fleet.

    `addresses` are of nodes, tunnels and operators; what is no address, such as a host's name, is left out.
    """
    interfaces = sorted({switch.spec.uplink.interface for switch in switches if switch.spec.uplink})
    uplinks = (UplinkNetwork(network_name=uplink_network_name(name), interface=name) for name in interfaces)
    return NodeNetwork(uplinks=tuple(uplinks), peers=tuple(sorted({a for a in addresses if _is_address(a)})))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
