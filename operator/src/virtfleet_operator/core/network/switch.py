"""From a VirtualSwitch to logical switches, one for each VLAN, and to what guests are told and get from them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Final

from virtfleet_operator.core.network.match import of_version, quoted
from virtfleet_operator.core.network.names import (
    FORWARDS,
    dhcp_key,
    forward_port,
    network_key,
    network_name,
    port_group_key,
)
from virtfleet_operator.core.network.rows import Attachment, Row, RowKey, Value, no_text
from virtfleet_operator.core.network.topology import OutboundPlan, SubnetPlan, SwitchPlan

LEASE_SECONDS: Final = 12 * 3600
"""Addresses never move between cards, so a lease need only be short enough for guests to learn of a changed subnet;
a long one outlives a node's agent being away, which answers DHCP."""

SERVICE_ADDRESS: Final = "169.254.0.1"
"""Where a switch itself answers. Link-local: no subnet has it, so none loses an address to it."""


def compile_switch(switch: SwitchPlan) -> list[Row]:
    """Return a switch's rows."""
    rows: list[Row] = []
    for vlan in switch.vlans:
        rows += [_network(switch, vlan), *_uplink(switch, vlan), *_service(switch, vlan), _forward(switch, vlan)]
        rows += [_dhcp(switch, vlan, subnet) for subnet in switch.subnets if subnet.dhcp]
    if switch.outbound is not None:
        rows += _outbound(switch, switch.outbound)
    return rows


def router_mac(name: str) -> str:
    """Return a MAC address for a router's or DHCP server's port: always the same, locally administered."""
    return ":".join(["0a", *hashlib.sha256(name.encode()).digest()[:5].hex(":").split(":")])


def switch_port(key: RowKey, network: RowKey, kind: str, **columns: Value) -> Row:
    """Return a logical switch port of a network; `kind` is OVN's type, empty for a card."""
    said: dict[str, Value] = {
        "name": key.name,
        "type": kind,
        "options": {},
        "tag": frozenset[int](),
        "addresses": no_text(),
        "port_security": no_text(),
        "enabled": frozenset[bool](),
        "dhcpv4_options": frozenset[RowKey](),
        "dhcpv6_options": frozenset[RowKey](),
    }
    return Row(key, {**said, **columns}, frozenset({Attachment(network, "ports")}))


def _network(switch: SwitchPlan, vlan: int | None) -> Row:
    key = network_key(switch.name, vlan)
    return Row(key, {"name": key.name, "other_config": {}}, notes={"virtual-switch": switch.name})


def _uplink(switch: SwitchPlan, vlan: int | None) -> Iterator[Row]:
    if switch.uplink is not None:
        yield switch_port(
            RowKey("Logical_Switch_Port", f"{network_name(switch.name, vlan)}/uplink"),
            network_key(switch.name, vlan),
            "localnet",
            addresses=frozenset({"unknown"}),
            options={"network_name": switch.uplink},
            tag=frozenset[int]() if vlan is None else frozenset({vlan}),
        )


def _service(switch: SwitchPlan, vlan: int | None) -> Iterator[Row]:
    """Yield a port that is nowhere, so that the switch answers ARP for the address at which guests ask for names.

    The queries themselves never get there: the switch answers them on their way.
    """
    if any(_answers_names(subnet) for subnet in switch.subnets):
        key = RowKey("Logical_Switch_Port", f"{network_name(switch.name, vlan)}/service")
        addresses = frozenset({f"{_service_mac(switch)} {SERVICE_ADDRESS}"})
        yield switch_port(key, network_key(switch.name, vlan), "", addresses=addresses)


def _forward(switch: SwitchPlan, vlan: int | None) -> Row:
    """Return the port from which each node reaches the guests that it runs; what it sends never leaves the node.

    It may send from its own addresses alone: no node can be made to pass on what a guest has sent it. Without any it is
    off, and still there: a node cannot parse a rule that names a port group without ports on the rule's switch.
    """
    sources = [str(subnet.forwarder) for subnet in switch.subnets if subnet.forwarder is not None]
    claim = frozenset({" ".join([forward_mac(switch.name), *sources])})
    enabled = frozenset({bool(sources)})
    key, network = RowKey("Logical_Switch_Port", forward_port(switch.name, vlan)), network_key(switch.name, vlan)
    row = switch_port(key, network, "localport", addresses=claim, port_security=claim, enabled=enabled)
    return replace(row, attached=row.attached | {Attachment(port_group_key(FORWARDS), "ports")})


def forward_mac(switch: str) -> str:
    """Return the MAC address of the ports from which nodes reach guests of a switch."""
    return router_mac(f"forward {switch}")


def _answers_names(subnet: SubnetPlan) -> bool:
    """Tell whether guests need the switch's own address to have any name server at all."""
    return subnet.network.version == 4 and subnet.dhcp and subnet.domain is not None and not subnet.dns  # noqa: PLR2004


def _service_mac(switch: SwitchPlan) -> str:
    return router_mac(f"service {switch.name}")


def _dhcp(switch: SwitchPlan, vlan: int | None, subnet: SubnetPlan) -> Row:
    key = dhcp_key(switch.name, vlan, subnet.network.version)
    options = _dhcp4(switch, subnet) if subnet.network.version == 4 else _dhcp6(switch, subnet)  # noqa: PLR2004
    return Row(key, {"cidr": str(subnet.network), "options": options})


def _dhcp4(switch: SwitchPlan, subnet: SubnetPlan) -> dict[str, str | int]:
    """Return what guests are told. See dhcp-options(5) and ovn-nb(5), "DHCP_Options"."""
    options: dict[str, str | int] = {
        "server_id": str(subnet.gateway or SERVICE_ADDRESS),
        "server_mac": _service_mac(switch),
        "lease_time": str(LEASE_SECONDS),
        "mtu": str(switch.mtu),
    }
    if subnet.gateway is not None:
        options["router"] = str(subnet.gateway)
    if subnet.dns:
        options["dns_server"] = _members(of_version(subnet.dns, 4))
    if subnet.domain is not None:
        options["domain_name"] = quoted(subnet.domain)
    if _answers_names(subnet):
        # A guest that is sent routes like this ignores `router` (RFC 3442), so the default route is one of them.
        default = [f"0.0.0.0/0,{subnet.gateway}"] if subnet.gateway is not None else []
        routes = [f"{SERVICE_ADDRESS}/32,0.0.0.0", *default]
        options |= {"dns_server": SERVICE_ADDRESS, "classless_static_route": f"{{{', '.join(routes)}}}"}
    return options


def _dhcp6(switch: SwitchPlan, subnet: SubnetPlan) -> dict[str, str | int]:
    options: dict[str, str | int] = {"server_id": _service_mac(switch)}
    if subnet.dns:
        options["dns_server"] = _members(of_version(subnet.dns, 6))
    if subnet.domain is not None:
        options["domain_search"] = quoted(subnet.domain)
    return options


def _members(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{{{', '.join(texts)}}}"


def _outbound(switch: SwitchPlan, outbound: OutboundPlan) -> list[Row]:
    """Return a router between the switch and a VLAN of an uplink, with source NAT at one node at a time."""
    inside = next((subnet for subnet in switch.subnets if subnet.network.version == 4), None)  # noqa: PLR2004
    if inside is None or inside.gateway is None:
        return []
    router = RowKey("Logical_Router", switch.name)
    network = inside.network
    inner, outer = f"{switch.name}/inside", f"{switch.name}/outside"
    inner_address = f"{inside.gateway}/{network.prefixlen}"
    outer_address = f"{outbound.address}/{outbound.prefix_length}"
    return [
        Row(router, {"name": router.name, "options": {}}, notes={"virtual-switch": switch.name}),
        *_joint(router, inner, inner_address, network_key(switch.name, switch.vlans[0])),
        *_joint(router, outer, outer_address, network_key(outbound.switch, outbound.vlan)),
        *_carriers(outer, outbound.nodes),
        _nat(router, outbound, network),
        *_route(router, outbound),
        _one_way(router, outer),
    ]


def _joint(router: RowKey, name: str, address: str, network: RowKey) -> Iterator[Row]:
    """Join a router to a logical switch."""
    columns: dict[str, Value] = {"name": name, "mac": router_mac(name), "networks": frozenset({address})}
    yield Row(RowKey("Logical_Router_Port", name), columns, frozenset({Attachment(router, "ports")}))
    key = RowKey("Logical_Switch_Port", f"{name}/switch")
    yield switch_port(key, network, "router", addresses=frozenset({"router"}), options={"router-port": name})


def _carriers(port: str, nodes: Sequence[str]) -> Iterator[Row]:
    for position, node in enumerate(nodes):
        name = f"{port}/{node}"
        columns: dict[str, Value] = {"name": name, "chassis_name": node, "priority": len(nodes) - position}
        attached = Attachment(RowKey("Logical_Router_Port", port), "gateway_chassis")
        yield Row(RowKey("Gateway_Chassis", name), columns, frozenset({attached}))


def _one_way(router: RowKey, port: str) -> Row:
    """Return the drop of what comes from outside and is no answer: else a route there would lead to the guests.

    Answers have gone through conntrack by then, which has put the guest's address in the place of the outer one.
    """
    columns: dict[str, Value] = {
        "priority": 1000,
        "match": f"inport == {quoted(port)} && ip && !ct.trk",
        "action": "drop",
    }
    return Row(RowKey("Logical_Router_Policy", router.name), columns, frozenset({Attachment(router, "policies")}))


def _nat(router: RowKey, outbound: OutboundPlan, network: object) -> Row:
    assert isinstance(network, IPv4Network)  # noqa: S101 -- for the type checker
    columns: dict[str, Value] = {"type": "snat", "external_ip": str(outbound.address), "logical_ip": str(network)}
    return Row(RowKey("NAT", router.name), columns, frozenset({Attachment(router, "nat")}))


def _route(router: RowKey, outbound: OutboundPlan) -> Iterator[Row]:
    if outbound.gateway is not None:
        columns: dict[str, Value] = {"ip_prefix": "0.0.0.0/0", "nexthop": str(outbound.gateway)}
        attached = frozenset({Attachment(router, "static_routes")})
        yield Row(RowKey("Logical_Router_Static_Route", router.name), columns, attached)
