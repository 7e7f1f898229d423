"""The network cards of a machine, as users write them."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from virtfleet_api.bandwidth import Bandwidth
from virtfleet_api.base import ATOMIC, Model
from virtfleet_api.names import DNS_LABEL_PATTERN

MAC_PATTERN: Final = r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$"
IP_PATTERN: Final = r"^[0-9a-fA-F.:]{2,45}$"
"""Characters of an IPv4 or IPv6 address; whether it is one is checked when it is read."""
CIDR_PATTERN: Final = r"^[0-9a-fA-F.:]{2,45}(/[0-9]{1,3})?$"

MAX_VLAN: Final = 4094
Vlan = Annotated[int, Field(ge=1, le=MAX_VLAN)]


class NicModel(StrEnum):
    """The network card the guest sees."""

    VIRTIO = "virtio"
    E1000E = "e1000e"


class LinkState(StrEnum):
    """Whether the cable is plugged in."""

    UP = "up"
    DOWN = "down"


class UserNetwork(Model):
    """Plain outbound NAT by QEMU itself: the guest reaches out, nothing reaches in."""


class AllowedAddress(Model):
    """An address that a card may use beside its own, such as one that moves between two machines (VRRP)."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    ip_address: Annotated[
        str, Field(pattern=CIDR_PATTERN, max_length=49, description='Address or range, such as "10.1.0.100" or a CIDR.')
    ]
    mac_address: Annotated[
        str | None,
        Field(pattern=MAC_PATTERN, max_length=17, description="MAC address it is used with; the card's by default."),
    ] = None


class Network(Model):
    """A network card of the machine: on a `switch`, or with `user` behind QEMU's own NAT."""

    name: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name, unique within the machine.")
    ]
    user: Annotated[UserNetwork | None, Field(description="Outbound NAT without a switch.")] = None
    switch: Annotated[
        str | None,
        Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="VirtualSwitch that the card is plugged into."),
    ] = None
    port_group: Annotated[
        str | None,
        Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Port group of the switch; its defaults apply."),
    ] = None
    vlan: Annotated[
        Vlan | None, Field(description="VLAN of the switch, instead of a port group's; the untagged one by default.")
    ] = None
    mac_address: Annotated[
        str | None,
        Field(
            pattern=MAC_PATTERN,
            max_length=17,
            description="MAC address; else one is derived from the machine's UID and kept for its life.",
        ),
    ] = None
    ip_address: Annotated[
        str | None,
        Field(
            pattern=IP_PATTERN,
            max_length=15,
            description="IPv4 address; else one of the switch's subnet is assigned and kept for the machine's life.",
        ),
    ] = None
    ipv6_address: Annotated[
        str | None,
        Field(
            pattern=IP_PATTERN,
            max_length=45,
            description="IPv6 address; else one of the switch's subnet6 is assigned and kept for the machine's life.",
        ),
    ] = None
    allowed_addresses: Annotated[
        tuple[AllowedAddress, ...],
        Field(max_length=16, description="Addresses the guest may use beside the card's own, despite anti-spoofing."),
    ] = ()
    security_groups: Annotated[
        tuple[Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)], ...] | None,
        Field(
            max_length=16,
            description="SecurityGroups of this namespace that the card belongs to, instead of the port group's; with "
            "none at all, the switch's defaultPolicy applies.",
        ),
    ] = None
    bandwidth: Annotated[
        Bandwidth | None, Field(description="Limits; the port group's when absent, none when empty.")
    ] = None
    model: Annotated[NicModel, Field(description="Card the guest sees.")] = NicModel.VIRTIO
    state: Annotated[LinkState, Field(description="up, or down as if the cable were pulled.")] = LinkState.UP
