"""Rules about virtual switches."""

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from virtfleet_api.names import DNS_LABEL_PATTERN
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_switch import Subnet, SwitchType, VirtualSwitch, VirtualSwitchSpec, parse_vlans
from virtfleet_operator.core.network.topology import IpNetwork
from virtfleet_operator.core.validate.image import listed_users
from virtfleet_operator.core.validate.networks import bandwidth_problems, is_address
from virtfleet_operator.core.verdict import quote

_LEAST_PREFIX: Final = {4: 12, 6: 32}
_MOST_PREFIX: Final = {4: 30, 6: 126}
_EXAMPLES: Final = {4: "10.1.0.0/24", 6: "fd00:1::/64"}
_OVERLAY_MTU: Final = 8942  # of a 9000-byte underlay, less Geneve's headers


def switch_problems(switch: VirtualSwitch, old: VirtualSwitch | None = None) -> tuple[str, ...]:
    """Check a switch; `old` is what it replaces, where that is known."""
    if not re.fullmatch(DNS_LABEL_PATTERN, switch.metadata.name):
        return (f"metadata.name: {quote(switch.metadata.name)} has a dot, and cards cannot name it: write one without",)
    return tuple(_problems(switch.spec)) or tuple(_change_problems(switch, old) if old else ())


def overlap_problems(switch: VirtualSwitch, others: Iterable[VirtualSwitch]) -> tuple[str, ...]:
    """Say which other switch has addresses of this one: rules by CIDR would mean both."""
    mine = _networks(switch.spec)
    for other in others:
        for field, network in mine.items():
            for theirs in _networks(other.spec).values():
                if network.version == theirs.version and network.overlaps(theirs):
                    named = f"overlaps {theirs} of VirtualSwitch {other.metadata.name}"
                    return (
                        f"spec.{field}.cidr: {quote(str(network))} {named}: write a range that no other switch has",
                    )
    return ()


def switch_deletion_problems(switch: ObjectMeta, users: Sequence[str]) -> tuple[str, ...]:
    """Say who keeps a switch from being deleted; `users` are "namespace/name" of machines."""
    if not users:
        return ()
    remedy = "delete these machines first, or take the switch out of their spec.networks"
    return (f"VirtualSwitch {switch.name} is used by {listed_users(users)}: {remedy}",)


def _networks(spec: VirtualSwitchSpec) -> dict[str, IpNetwork]:
    found = {"subnet": spec.subnet, "subnet6": spec.subnet6}
    return {field: ip_network(s.cidr) for field, s in found.items() if s and not tuple(_subnet_problems(field, s))}


def _problems(spec: VirtualSwitchSpec) -> Iterator[str]:
    if spec.type is SwitchType.UPLINK and spec.uplink is None:
        yield 'spec.uplink: is missing: write the network device of the nodes, such as "interface: bond0"'
    if spec.type is SwitchType.OVERLAY and spec.uplink is not None:
        yield "spec.uplink: has no effect on an Overlay: write type: Uplink, or remove it"
    for field, subnet in (("subnet", spec.subnet), ("subnet6", spec.subnet6)):
        yield from _subnet_problems(field, subnet) if subnet else ()
    yield from _vlan_problems(spec)
    yield from _port_group_problems(spec)
    yield from _outbound_problems(spec)
    if spec.type is SwitchType.OVERLAY and spec.mtu is not None and spec.mtu > _OVERLAY_MTU:
        yield f"spec.mtu: {spec.mtu} leaves no room for the tunnel's headers: write at most {_OVERLAY_MTU}"


def _subnet_problems(field: str, subnet: Subnet) -> Iterator[str]:
    version = 6 if field == "subnet6" else 4
    where = f"spec.{field}"
    try:
        network = ip_network(subnet.cidr)
    except ValueError:
        network = None
    if network is None or network.version != version:
        loose = _loose(subnet.cidr, version)
        yield (
            f"{where}.cidr: {quote(subnet.cidr)} is no range of IPv{version} addresses: "
            f'write one such as "{loose or _EXAMPLES[version]}"'
        )
        return
    if not _LEAST_PREFIX[version] <= network.prefixlen <= _MOST_PREFIX[version]:
        least, most = _LEAST_PREFIX[version], _MOST_PREFIX[version]
        yield f"{where}.cidr: {quote(subnet.cidr)} is too large or too small: write a prefix from /{least} to /{most}"
    if subnet.gateway is not None and not (is_address(subnet.gateway, version) and _is_host(subnet.gateway, network)):
        yield f'{where}.gateway: {quote(subnet.gateway)} is no host in {network}: write one such as "{network[1]}"'
    for index, text in enumerate(subnet.reserved):
        if not _is_part(text, network):
            said = f"{quote(text)} is no part of {network}"
            yield f'{where}.reserved[{index}]: {said}: write one such as "{network[1]}-{network[2]}", the lower first'
    for index, text in enumerate(subnet.dns):
        if not is_address(text, version):
            yield f'{where}.dns[{index}]: {quote(text)} is no IPv{version} address: write one such as "{network[1]}"'


def _loose(cidr: str, version: int) -> str:
    """Return the range that a host address with a prefix length is in, as that is what is written most."""
    try:
        network = ip_network(cidr, strict=False)
    except ValueError:
        return ""
    return str(network) if network.version == version else ""


def _is_host(text: str, network: IpNetwork) -> bool:
    address = ip_address(text)
    edges = {network.network_address, network.broadcast_address} if network.version == 4 else {network.network_address}  # noqa: PLR2004  IPv4
    return address in network and address not in edges


def _is_part(text: str, network: IpNetwork) -> bool:
    first, _, last = text.partition("-")
    try:
        low, high = ip_address(first), ip_address(last or first)
    except ValueError:
        return False
    return low in network and high in network and int(low) <= int(high)


def _vlan_problems(spec: VirtualSwitchSpec) -> Iterator[str]:
    try:
        allowed = parse_vlans(spec.uplink.vlans if spec.uplink else None)
    except ValueError as error:
        yield f"spec.uplink.vlans: {error}"
        return
    for index, group in enumerate(spec.port_groups):
        if spec.uplink is not None and group.vlan is not None and group.vlan not in allowed:
            listed = f'"{spec.uplink.vlans}"' if spec.uplink.vlans else "empty"
            yield (
                f"spec.portGroups[{index}].vlan: {group.vlan} is not in spec.uplink.vlans, which is {listed}: "
                "write one that is, or add it there"
            )


def _port_group_problems(spec: VirtualSwitchSpec) -> Iterator[str]:
    seen: set[str] = set()
    for index, group in enumerate(spec.port_groups):
        where = f"spec.portGroups[{index}]"
        if group.name in seen:
            yield f"{where}.name: {quote(group.name)} is used twice: write a name that no other port group has"
        seen.add(group.name)
        yield from bandwidth_problems(f"{where}.bandwidth", group.bandwidth)


def _outbound_problems(spec: VirtualSwitchSpec) -> Iterator[str]:
    outbound = spec.outbound
    if outbound is None:
        return
    if spec.type is SwitchType.UPLINK:
        yield "spec.outbound: is for an Overlay, as an Uplink has the physical network's own router: remove it"
    if spec.subnet is None or spec.subnet.gateway is None:
        yield "spec.outbound: needs spec.subnet with a gateway, which guests send to: write both, or remove it"
    if not is_address(outbound.address, 4):
        yield f'spec.outbound.address: {quote(outbound.address)} is no IPv4 address: write one such as "192.0.2.10"'
    elif outbound.gateway is not None:
        outer = ip_network(f"{outbound.address}/{outbound.prefix_length}", strict=False)
        if not is_address(outbound.gateway, 4) or not _is_host(outbound.gateway, outer):
            said = f"{quote(outbound.gateway)} is no host in {outer}"
            yield f'spec.outbound.gateway: {said}: write one such as "{outer[1]}"'


def _change_problems(switch: VirtualSwitch, old: VirtualSwitch) -> Iterator[str]:
    """Refuse what would pull a switch away from under the cards that are plugged in."""
    if old.status.ports == 0:
        return
    held = f"{old.status.ports} cards are plugged in"
    if switch.spec.type is not old.spec.type:
        yield f"spec.type: cannot change while {held}: write {old.spec.type}, or make another switch"
    for field in ("subnet", "subnet6"):
        before, after = getattr(old.spec, field), getattr(switch.spec, field)
        if before is None:
            continue
        if after is None or not _covers(after, before):
            yield (
                f"spec.{field}.cidr: must go on to hold {before.cidr} while {held}: "
                f'write "{before.cidr}" or a larger range, or make another switch'
            )
        elif after.gateway != before.gateway:
            yield f"spec.{field}.gateway: cannot change while {held}: write what it was, or make another switch"


def _covers(after: Subnet, before: Subnet) -> bool:
    new, old = ip_network(after.cidr), ip_network(before.cidr)
    return new.version == old.version and old.subnet_of(new)  # type: ignore[arg-type]
