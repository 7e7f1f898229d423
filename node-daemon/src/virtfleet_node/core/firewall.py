"""The node's own firewall, as text for nft: what only nodes and operators use is closed to everybody else.

Only the beginning of a TCP connection is dropped (SYN without ACK): what is established passes, answers to connections
that the node makes pass, and no connection need be tracked. Tunnels have no connections; each packet is looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

TABLE: Final = "inet virtfleet"

MIGRATION_PORTS: Final = (49152, 49215)
"""libvirt's default range for QEMU's migrations."""

LIBVIRT_PORTS: Final = (16509, 16514)
"""libvirtd without and with TLS."""

TUNNEL_PORTS: Final = (4789, 6081)
"""VXLAN and Geneve."""


@dataclass(frozen=True)
class Peers:
    """Who may use the node's ports."""

    ipv4: tuple[IPv4Address, ...]
    ipv6: tuple[IPv6Address, ...]


def parse_peers(addresses: Iterable[str]) -> Peers:
    """Sort addresses by version. ValueError names one that is none."""
    found = {ip_address(address) for address in addresses}
    return Peers(
        tuple(sorted(address for address in found if isinstance(address, IPv4Address))),
        tuple(sorted(address for address in found if isinstance(address, IPv6Address))),
    )


def compile_ruleset(peers: Peers, ports: Iterable[int]) -> str:
    """Return what replaces the table, in one transaction; `ports` are the daemon's own TCP ports."""
    first, last = MIGRATION_PORTS
    closed = ", ".join(map(str, sorted({*ports, *LIBVIRT_PORTS})))
    tunnels = ", ".join(map(str, TUNNEL_PORTS))
    return f"""\
table {TABLE}
delete table {TABLE}
table {TABLE} {{
	set peers4 {{
		type ipv4_addr{_elements(peers.ipv4)}
	}}
	set peers6 {{
		type ipv6_addr{_elements(peers.ipv6)}
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iif "lo" accept
		ip saddr @peers4 accept
		ip6 saddr @peers6 accept
		udp dport {{ {tunnels} }} drop
		tcp flags & (syn | ack) == syn tcp dport {{ {closed}, {first}-{last} }} drop
	}}
}}
"""


def compile_removal() -> str:
    """Return what removes the table, whether it is there or not."""
    return f"table {TABLE}\ndelete table {TABLE}\n"


def _elements(addresses: Iterable[IPv4Address | IPv6Address]) -> str:
    listed = ", ".join(map(str, addresses))
    return f"\n\t\telements = {{ {listed} }}" if listed else ""
