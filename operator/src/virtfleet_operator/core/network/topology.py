"""The network as it shall be, resolved: names are looked up, defaults applied, addresses parsed.

What is compiled into rows of OVN's northbound database. Only typed values are here, no text of a user: OVN accepts a
malformed match and then silently leaves it out.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from virtfleet_api.security_group import SecurityGroupSpec
from virtfleet_api.virtual_switch import DefaultPolicy

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True)
class SubnetPlan:
    """Managed addresses of one family."""

    network: IpNetwork
    gateway: IpAddress | None
    dns: tuple[IpAddress, ...]
    domain: str | None
    dhcp: bool
    forwarder: IpAddress | None = None
    """Where the nodes themselves reach guests from; None when they cannot."""


@dataclass(frozen=True)
class OutboundPlan:
    """A router with source NAT to an uplink."""

    switch: str
    """VirtualSwitch of type Uplink."""
    vlan: int | None
    address: IPv4Address
    prefix_length: int
    gateway: IPv4Address | None
    nodes: tuple[str, ...]
    """VMNodes that may carry it, most wanted first."""


@dataclass(frozen=True)
class SwitchPlan:
    """A VirtualSwitch. Each of its VLANs is a network of its own: a logical switch."""

    name: str
    uid: str
    uplink: str | None
    """OVN's name of the physical network; None for an Overlay."""
    vlans: tuple[int | None, ...]
    """VLANs in use, None for the untagged network."""
    mtu: int
    default_policy: DefaultPolicy
    subnets: tuple[SubnetPlan, ...]
    outbound: OutboundPlan | None


@dataclass(frozen=True)
class RateLimit:
    """A limit of one direction."""

    bits_per_second: int
    burst_bytes: int


@dataclass(frozen=True)
class AllowedPair:
    """Addresses a card may use beside its own."""

    mac: str
    network: IpNetwork


@dataclass(frozen=True)
class PortPlan:
    """A network card on a switch."""

    id: str
    """Name of the logical switch port, a UUID: libvirt's interfaceid."""
    machine: str
    """namespace/name, for people who look into OVN."""
    interface: str
    switch: str
    vlan: int | None
    mac: str
    addresses: tuple[IpAddress, ...]
    allowed: tuple[AllowedPair, ...]
    anti_spoof: bool
    groups: tuple[str, ...]
    """UIDs of SecurityGroups."""
    outbound: RateLimit | None
    host_name: str
    """What the machine is called in DNS, below the switch's domain: <machine>.<namespace>."""
    up: bool
    closed: bool = False
    """It names a group that is not there: without its rules nothing reaches it."""


@dataclass(frozen=True)
class GroupPlan:
    """A SecurityGroup."""

    uid: str
    namespace: str
    name: str
    spec: SecurityGroupSpec
    peers: dict[tuple[str, str], str]
    """UIDs of the groups that its rules name and may name, by (namespace, name)."""
