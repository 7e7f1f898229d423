"""From objects to the resolved network: ports, switches and groups as `topology` has them."""

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Final

from virtfleet_api.bandwidth import Rate
from virtfleet_api.machine import InterfaceLimit
from virtfleet_api.network import LinkState
from virtfleet_api.node_network import uplink_network_name
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.security_group import Peer, SecurityGroup
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import Outbound, Subnet, VirtualSwitch
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.network.cards import Card, mac_of, mtu_of, port_id
from virtfleet_operator.core.network.forward import forwarder_of
from virtfleet_operator.core.network.subnets import parse_range
from virtfleet_operator.core.network.topology import (
    AllowedPair,
    GroupPlan,
    IpAddress,
    OutboundPlan,
    PortPlan,
    RateLimit,
    SubnetPlan,
    SwitchPlan,
)
from virtfleet_operator.core.verdict import quote

_PARTS_OF_A_SECOND: Final = 10
"""The burst that is allowed when none is named: what passes in this part of a second. Less slows TCP down."""

_LEAST_BURST: Final = 32 * 1024  # bytes; a few packets of offloaded TCP


def limit_of(rate: Rate | None) -> InterfaceLimit | None:
    """Return a limit with its burst; None for none."""
    if rate is None:
        return None
    usual = max(int(rate.average) // 8 // _PARTS_OF_A_SECOND, _LEAST_BURST)
    return InterfaceLimit(bits_per_second=int(rate.average), burst_bytes=int(rate.burst or usual))


def build_port(vm: VirtualMachine, card: Card, addresses: tuple[IpAddress, ...], catalog: Catalog) -> PortPlan:
    """Build the port of a card."""
    namespace, mac, outbound = vm.metadata.namespace, mac_of(vm, card.nic), limit_of(card.bandwidth.outbound)
    groups = [catalog.security_group(*named) for named in card.groups(namespace)]
    return PortPlan(
        id=port_id(vm.metadata.uid, card.name),
        machine=f"{namespace}/{vm.metadata.name}",
        interface=card.name,
        switch=card.switch.metadata.name,
        vlan=card.vlan,
        mac=mac,
        addresses=addresses,
        allowed=tuple(
            AllowedPair((allowed.mac_address or mac).lower(), ip_network(allowed.ip_address))
            for allowed in card.nic.allowed_addresses
        ),
        anti_spoof=card.anti_spoof,
        groups=tuple(dict.fromkeys(group.metadata.uid for group in groups if group)),
        outbound=RateLimit(outbound.bits_per_second, outbound.burst_bytes) if outbound else None,
        host_name=f"{vm.metadata.name}.{namespace}",
        up=card.nic.state is LinkState.UP,
        closed=None in groups,
    )


def build_switch(
    switch: VirtualSwitch,
    vlans: Iterable[int | None],
    nodes: Iterable[str],
    catalog: Catalog,
) -> SwitchPlan:
    """Build a switch with the VLANs in use; `nodes` may carry its way out."""
    spec = switch.spec
    in_use = {group.vlan for group in spec.port_groups} | set(vlans) | {None}
    return SwitchPlan(
        name=switch.metadata.name,
        uid=switch.metadata.uid,
        uplink=uplink_network_name(spec.uplink.interface) if spec.uplink else None,
        vlans=tuple(sorted(in_use, key=lambda vlan: vlan or 0)),
        mtu=mtu_of(switch),
        default_policy=spec.default_policy,
        subnets=tuple(_subnet(switch.metadata.name, given, catalog) for given in (spec.subnet, spec.subnet6) if given),
        outbound=_outbound(spec.outbound, tuple(nodes)) if spec.outbound else None,
    )


def _subnet(switch: str, subnet: Subnet, catalog: Catalog) -> SubnetPlan:
    given = parse_range(subnet)
    forwarder = forwarder_of(switch, given)
    # A card that was given the address before nodes came to want it keeps it.
    is_free = forwarder is not None and catalog.address(switch, forwarder) is None
    return SubnetPlan(
        network=given.network,
        gateway=given.router if subnet.gateway else None,
        dns=tuple(ip_address(text) for text in subnet.dns),
        domain=subnet.domain,
        dhcp=subnet.dhcp,
        forwarder=forwarder if is_free else None,
    )


def _outbound(outbound: Outbound, nodes: tuple[str, ...]) -> OutboundPlan:
    return OutboundPlan(
        switch=outbound.switch,
        vlan=outbound.vlan,
        address=IPv4Address(outbound.address),
        prefix_length=outbound.prefix_length,
        gateway=IPv4Address(outbound.gateway) if outbound.gateway else None,
        nodes=nodes,
    )


def build_group(group: SecurityGroup, catalog: Catalog) -> tuple[GroupPlan, tuple[str, ...]]:
    """Build a group, and say which groups its rules name in vain: nothing passes by those."""
    meta = group.metadata
    peers: dict[tuple[str, str], str] = {}
    problems: list[str] = []
    for peer in _peers(group):
        named = peer.security_group
        if named is None:
            continue
        key = (named.namespace or meta.namespace, named.name)
        found = catalog.security_group(*key)
        if found is None or not may_name(found, meta):
            problems.append(_absent(meta, key))
        else:
            peers[key] = found.metadata.uid
    plan = GroupPlan(uid=meta.uid, namespace=meta.namespace, name=meta.name, spec=group.spec, peers=peers)
    return plan, tuple(dict.fromkeys(problems))


def peer_keys(group: SecurityGroup) -> tuple[tuple[str, str], ...]:
    """Return (namespace, name) of the groups that a group's rules name."""
    named = (peer.security_group for peer in _peers(group) if peer.security_group)
    return tuple(dict.fromkeys((ref.namespace or group.metadata.namespace, ref.name) for ref in named))


def may_name(found: SecurityGroup, by: ObjectMeta) -> bool:
    """Tell whether rules of another group may name this one: of its own namespace, or with its consent."""
    return by.namespace == found.metadata.namespace or bool({by.namespace, "*"} & set(found.spec.shared_with))


def _absent(meta: ObjectMeta, key: tuple[str, str]) -> str:
    namespace, name = key
    if namespace == meta.namespace:
        return f"there is no SecurityGroup {quote(name)}: create it, or take it out of the rules"
    return (
        f"there is no SecurityGroup {quote(name)} in namespace {quote(namespace)} that is shared with this one: "
        f"add {quote(meta.namespace)} to its spec.sharedWith, or take it out of the rules"
    )


def _peers(group: SecurityGroup) -> Iterable[Peer]:
    for ingress in group.spec.ingress:
        yield from ingress.from_
    for egress in group.spec.egress or ():
        yield from egress.to
