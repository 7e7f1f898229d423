"""The kind VirtualSwitch: one switch for the whole fleet. Field descriptions are the reference documentation."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from virtfleet_api.bandwidth import Bandwidth
from virtfleet_api.base import ATOMIC, Model
from virtfleet_api.conditions import Condition
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.network import CIDR_PATTERN, IP_PATTERN, MAX_VLAN, Vlan
from virtfleet_api.resource import PrinterColumn, Resource

INTERFACE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$"
"""A network device's name on Linux: at most 15 characters."""

VLANS_PATTERN: Final = r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$"

ADDRESS_RANGE_PATTERN: Final = r"^[0-9a-fA-F.:]{2,45}(-[0-9a-fA-F.:]{2,45})?$"


class SwitchType(StrEnum):
    """What carries the switch from node to node."""

    OVERLAY = "Overlay"
    UPLINK = "Uplink"


class DefaultPolicy(StrEnum):
    """What becomes of traffic of a card that belongs to no security group."""

    ALLOW = "Allow"
    DENY = "Deny"


class PortBinding(StrEnum):
    """How long a card keeps its port and addresses."""

    STATIC = "Static"
    DYNAMIC = "Dynamic"


class Uplink(Model):
    """The physical network that an Uplink switch is part of."""

    interface: Annotated[
        str,
        Field(
            pattern=INTERFACE_PATTERN,
            max_length=15,
            description="Network device of the same name on every node, such as bond0.",
        ),
    ]
    vlans: Annotated[
        str | None,
        Field(
            pattern=VLANS_PATTERN,
            max_length=255,
            description='VLANs that port groups and cards may use, such as "100-199,300"; none when absent.',
        ),
    ] = None


class Subnet(Model):
    """A range of addresses that the switch manages."""

    cidr: Annotated[
        str,
        Field(pattern=CIDR_PATTERN, max_length=49, description='The range, such as "10.1.0.0/24" or "fd00:1::/64".'),
    ]
    gateway: Annotated[
        str | None, Field(pattern=IP_PATTERN, max_length=45, description="Router that DHCP tells guests of.")
    ] = None
    reserved: Annotated[
        tuple[Annotated[str, Field(pattern=ADDRESS_RANGE_PATTERN, max_length=91)], ...],
        Field(
            max_length=64,
            description='Addresses never assigned by the switch, such as "10.1.0.2-10.1.0.9"; a machine may name one. '
            "The last IPv4 address that is not among these is the nodes', for port-forward.",
        ),
    ] = ()
    dns: Annotated[
        tuple[Annotated[str, Field(pattern=IP_PATTERN, max_length=45)], ...],
        Field(max_length=3, description="DNS servers that DHCP tells guests of."),
    ] = ()
    domain: Annotated[
        str | None,
        Field(
            pattern=DNS_SUBDOMAIN_PATTERN,
            max_length=190,
            description="Domain in which the switch answers for machines: <machine>.<namespace>.<domain>.",
        ),
    ] = None
    dhcp: Annotated[bool, Field(description="Answer DHCP requests of guests with their addresses.")] = True


class Outbound(Model):
    """A way out: guests reach the network of an Uplink switch under one address of it (SNAT)."""

    switch: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="VirtualSwitch of type Uplink to go out by.")
    ]
    vlan: Annotated[Vlan | None, Field(description="VLAN of that switch; the untagged one by default.")] = None
    address: Annotated[
        str, Field(pattern=IP_PATTERN, max_length=15, description="IPv4 address that guests show outside.")
    ]
    prefix_length: Annotated[int, Field(ge=8, le=30, description="Length of the outer network's prefix.")] = 24
    gateway: Annotated[
        str | None, Field(pattern=IP_PATTERN, max_length=15, description="Router of the outer network.")
    ] = None


class GroupReference(Model):
    """A SecurityGroup of any namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Its namespace.")]
    name: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Its name.")]


class PortGroup(Model):
    """Defaults under a name for cards of the switch."""

    name: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name that cards use.")]
    vlan: Annotated[Vlan | None, Field(description="VLAN of the cards; the untagged one by default.")] = None
    bandwidth: Annotated[Bandwidth | None, Field(description="Limits of each card that has none of its own.")] = None
    security_groups: Annotated[
        tuple[GroupReference, ...],
        Field(max_length=16, description="SecurityGroups of cards that name none."),
    ] = ()
    anti_spoof: Annotated[bool | None, Field(description="The switch's when absent.")] = None
    binding: Annotated[
        PortBinding,
        Field(description="Static: a card keeps its address for the machine's life. Dynamic: while the machine runs."),
    ] = PortBinding.STATIC


class VirtualSwitchSpec(Model):
    """What the administrator wants."""

    type: Annotated[
        SwitchType,
        Field(description="Overlay: tunnels between the nodes carry it. Uplink: VLANs of a physical network do."),
    ] = SwitchType.OVERLAY
    uplink: Annotated[Uplink | None, Field(description="The physical network, with type Uplink.")] = None
    subnet: Annotated[Subnet | None, Field(description="IPv4 addresses that the switch manages.")] = None
    subnet6: Annotated[Subnet | None, Field(description="IPv6 addresses that the switch manages.")] = None
    outbound: Annotated[Outbound | None, Field(description="A way out for guests, by source NAT; type Overlay.")] = None
    port_groups: Annotated[
        tuple[PortGroup, ...], Field(max_length=256, description="Defaults for cards, by name.")
    ] = ()
    anti_spoof: Annotated[
        bool, Field(description="Drop what a guest sends from MAC and IP addresses that are not its card's.")
    ] = True
    default_policy: Annotated[
        DefaultPolicy, Field(description="Allow or Deny traffic of cards without a security group.")
    ] = DefaultPolicy.ALLOW
    mtu: Annotated[
        int | None,
        Field(ge=576, le=9000, description="MTU of guests; 1442 for an Overlay and 1500 for an Uplink by default."),
    ] = None


class SwitchNode(Model):
    """The switch on one node."""

    name: Annotated[str, Field(description="Name of the VMNode.")]
    ready: Annotated[bool, Field(description="Cards on this node are connected.")]
    message: Annotated[str | None, Field(description="What keeps it from being ready.")] = None


class VirtualSwitchStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    ports: Annotated[int, Field(description="Cards plugged in.")] = 0
    addresses_free: Annotated[
        int | None, Field(ge=0, description="IPv4 addresses that can still be assigned; absent without a subnet.")
    ] = None
    nodes: Annotated[tuple[SwitchNode, ...], Field(description="The switch on each node.")] = ()
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class VirtualSwitch(Resource):
    """A switch that spans all nodes."""

    plural: ClassVar[str] = "virtualswitches"
    short_names: ClassVar[tuple[str, ...]] = ("vsw",)
    namespaced: ClassVar[bool] = False
    name_max_length: ClassVar[int] = 63
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Type", json_path=".spec.type"),
        PrinterColumn(name="Ready", json_path=".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn(name="Subnet", json_path=".spec.subnet.cidr"),
        PrinterColumn(name="Ports", type="integer", json_path=".status.ports"),
        PrinterColumn(name="Free", type="integer", json_path=".status.addressesFree"),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VirtualSwitch"
    spec: VirtualSwitchSpec = VirtualSwitchSpec()
    status: VirtualSwitchStatus = VirtualSwitchStatus()


def parse_vlans(text: str | None) -> frozenset[int]:
    """Return the VLANs of a list such as "100-199,300"; ValueError says what is wrong with it."""
    found: set[int] = set()
    for part in (text or "").split(",") if text else ():
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= MAX_VLAN:
            raise ValueError(f"{part!r} is no range of VLANs: write numbers from 1 to {MAX_VLAN}, the lower first")
        found.update(range(low, high + 1))
    return frozenset(found)
