"""Expressions of OVN's match language, built from typed values alone.

The northbound database and northd accept any text as a match; a node that cannot parse it leaves the rule out, which
nobody sees. So no text of a user may get here: only addresses, numbers and names that the operator made itself.
See ovn-sb(5), "Logical_Flow", `match`.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from virtfleet_api.security_group import Peer, Protocol, RulePort

IpNetwork = IPv4Network | IPv6Network

_NAME = re.compile(r"[A-Za-z0-9._/-]{1,253}")


def quoted(name: str) -> str:
    """Return a name as a string of OVN's language.

    Raises:
        ValueError: it has characters that no name in Kubernetes has; they might end the string.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name: letters, digits, '.', '-', '_' and '/' are allowed")
    return f'"{name}"'


def any_of(terms: Iterable[str]) -> str:
    """Return what is true when one of the terms is; each must be an atom or in parentheses."""
    found = list(dict.fromkeys(terms))
    return found[0] if len(found) == 1 else f"({' || '.join(found)})"


def all_of(*terms: str) -> str:
    """Return what is true when all terms are."""
    return " && ".join(term for term in terms if term)


def address_text(network: IpNetwork) -> str:
    """Return a network, a single address without its prefix length."""
    return str(network.network_address if network.num_addresses == 1 else network)


def in_network(side: str, network: IpNetwork, excepted: Sequence[IpNetwork]) -> str:
    """Match packets whose `side` ("src" or "dst") is in a network and in none of the excepted parts."""
    field = f"ip{network.version}.{side}"
    parts = [address_text(part) for part in excepted if part.version == network.version]
    # A prefix of zero bits is no constraint to OVN's parser: it wants a comparison with one.
    inside = f"{field} == {address_text(network)}" if network.prefixlen else f"ip{network.version}"
    outside = f"{field} != {{{', '.join(parts)}}}" if parts else ""
    return f"({all_of(inside, outside)})"


def in_group(side: str, port_group: str) -> str:
    """Match packets whose `side` is an address of a member of a port group."""
    return f"(ip4.{side} == ${port_group}_ip4 || ip6.{side} == ${port_group}_ip6)"


def from_cidr(side: str, peer: Peer) -> str:
    """Match a peer's `cidr`.

    Raises:
        ValueError: it is no range of addresses, or an exception of it is none.
    """
    network = ip_network(peer.cidr or "", strict=False)
    return in_network(side, network, [ip_network(text, strict=False) for text in peer.except_])


def to_ports(ports: Sequence[RulePort]) -> str:
    """Match packets to one of the ports; everything when there are none."""
    terms = [term for protocol in Protocol for term in _of_protocol(protocol, ports)]
    return any_of(terms) if terms else ""


def _of_protocol(protocol: Protocol, ports: Sequence[RulePort]) -> list[str]:
    mine = [port for port in ports if port.protocol is protocol]
    if not mine:
        return []
    if protocol is Protocol.ICMP:
        return _icmp(mine)
    name = protocol.value.lower()
    if any(port.port is None for port in mine):
        return [name]
    # One set for all single ports: ten rules of one port each take ten times the flows of one with ten ports.
    ends = {(port.port or 0, port.end_port or port.port or 0) for port in mine}
    singles = sorted(low for low, high in ends if low == high)
    ranges = sorted((low, high) for low, high in ends if low != high)
    terms = [f"{name}.dst == {{{', '.join(map(str, singles))}}}"] if singles else []
    return terms + [f"({name}.dst >= {low} && {name}.dst <= {high})" for low, high in ranges]


def _icmp(ports: Sequence[RulePort]) -> list[str]:
    if any(port.icmp_type is None for port in ports):
        return ["icmp"]
    return [_icmp_type(family, port) for port in ports for family in ("icmp4", "icmp6")]


def _icmp_type(family: str, port: RulePort) -> str:
    if port.icmp_code is None:
        return f"{family}.type == {port.icmp_type}"
    return f"({family}.type == {port.icmp_type} && {family}.code == {port.icmp_code})"


def of_version(addresses: Iterable[IPv4Address | IPv6Address], version: int) -> list[str]:
    """Return the addresses of an IP version."""
    return [str(address) for address in addresses if address.version == version]
