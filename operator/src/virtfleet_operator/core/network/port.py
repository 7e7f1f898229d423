"""From a network card to its logical switch port, with what guards it, limits it and names it."""

from collections.abc import Iterator
from typing import Final

from virtfleet_api.virtual_switch import DefaultPolicy
from virtfleet_operator.core.network.match import address_text, quoted
from virtfleet_operator.core.network.names import (
    GUARDED,
    ISOLATED,
    MEMBERS,
    dhcp_key,
    network_key,
    port_group_key,
    port_group_name,
)
from virtfleet_operator.core.network.rows import Attachment, Row, RowKey
from virtfleet_operator.core.network.switch import switch_port
from virtfleet_operator.core.network.topology import PortPlan, SwitchPlan

QOS_PRIORITY: Final = 100
MIN_BURST_KILOBITS: Final = 2 * 12
"""Two full Ethernet frames; a meter with less lets no large packet through at all."""


def compile_port(port: PortPlan, switch: SwitchPlan) -> list[Row]:
    """Return a card's rows. It becomes a member of its groups in the same transaction that makes it."""
    return [_logical_port(port, switch), *_limit(port), *_names(port, switch)]


def _logical_port(port: PortPlan, switch: SwitchPlan) -> Row:
    network = network_key(port.switch, port.vlan)
    row = switch_port(
        RowKey("Logical_Switch_Port", port.id),
        network,
        "",
        addresses=frozenset(_addresses(port)),
        port_security=frozenset(_port_security(port)),
        enabled=frozenset({port.up}),
        dhcpv4_options=_dhcp(port, switch, 4),
        dhcpv6_options=_dhcp(port, switch, 6),
        options=_options(port),
    )
    groups = frozenset(Attachment(port_group_key(name), "ports") for name in _port_groups(port, switch))
    return Row(
        row.key,
        row.columns,
        row.attached | groups,
        notes={"machine": port.machine, "interface": port.interface},
    )


def _port_groups(port: PortPlan, switch: SwitchPlan) -> Iterator[str]:
    yield from (port_group_name(uid) for uid in port.groups)
    if port.groups or port.closed:
        yield MEMBERS
    elif switch.default_policy is DefaultPolicy.DENY:
        yield ISOLATED
    if port.anti_spoof:
        yield GUARDED


def _addresses(port: PortPlan) -> Iterator[str]:
    """Yield where the switch finds the card; "unknown" also floods to it what is found nowhere."""
    yield " ".join([port.mac, *map(str, port.addresses)])
    if not port.anti_spoof or any(pair.mac != port.mac for pair in port.allowed):
        yield "unknown"


def _port_security(port: PortPlan) -> Iterator[str]:
    """Yield what the card may send from: nothing else passes, in IP, ARP and neighbour discovery.

    OVN adds the link-local address of the MAC address where an IPv6 address is listed, and drops all IPv6 where only
    IPv4 addresses are. A card without any known address is held to its MAC address alone.
    """
    if not port.anti_spoof:
        return
    for mac in dict.fromkeys([port.mac, *(pair.mac for pair in port.allowed)]):
        own = [*map(str, port.addresses)] if mac == port.mac else []
        pairs = [address_text(pair.network) for pair in port.allowed if pair.mac == mac]
        yield " ".join([mac, *dict.fromkeys(own + pairs if own or mac != port.mac else [])])


def _dhcp(port: PortPlan, switch: SwitchPlan, version: int) -> frozenset[RowKey]:
    served = any(subnet.dhcp and subnet.network.version == version for subnet in switch.subnets)
    has_address = any(address.version == version for address in port.addresses)
    return frozenset({dhcp_key(port.switch, port.vlan, version)} if served and has_address else ())


def _options(port: PortPlan) -> dict[str, str | int]:
    host_name = port.host_name.partition(".")[0]
    return {"hostname": quoted(host_name)} if host_name else {}


def _limit(port: PortPlan) -> Iterator[Row]:
    """Yield the limit of what the card sends: a meter in the switch, at the node where the card is."""
    if port.outbound is None:
        return
    rate = max(1, port.outbound.bits_per_second // 1000)
    burst = max(MIN_BURST_KILOBITS, port.outbound.burst_bytes * 8 // 1000)
    attached = Attachment(network_key(port.switch, port.vlan), "qos_rules")
    yield Row(
        RowKey("QoS", port.id),
        {
            "priority": QOS_PRIORITY,
            "direction": "from-lport",
            "match": f"inport == {quoted(port.id)}",
            "bandwidth": {"rate": rate, "burst": burst},
        },
        frozenset({attached}),
        needs=frozenset({RowKey("Logical_Switch_Port", port.id)}),
    )


def _names(port: PortPlan, switch: SwitchPlan) -> Iterator[Row]:
    """Yield what the switch answers to DNS queries for the machine's name."""
    domain = next((subnet.domain for subnet in switch.subnets if subnet.domain is not None), None)
    if domain is None or not port.addresses or not port.host_name:
        return
    records = {f"{port.host_name}.{domain}".lower(): " ".join(map(str, port.addresses))}
    attached = Attachment(network_key(port.switch, port.vlan), "dns_records")
    yield Row(RowKey("DNS", port.id), {"records": records}, frozenset({attached}))
