"""What owners, rows and port groups are called. The same thing always has the same name, or it is written anew."""

from typing import Final

from virtfleet_operator.core.network.rows import RowKey

COMMON_OWNER: Final = "common"
"""Owner of what all switches share."""
MEMBERS: Final = "virtfleet_members"
"""Port group of the cards that belong to a security group: what no rule lets in is dropped."""
ISOLATED: Final = "virtfleet_isolated"
"""Port group of the cards without a security group on a switch whose policy is Deny."""
GUARDED: Final = "virtfleet_guarded"
"""Port group of the cards that must not pose as a DHCP server."""
FORWARDS: Final = "virtfleet_forwards"
"""Port group of the ports from which the nodes themselves reach guests. It has no rules of its own, since these would
have every packet of a switch without groups tracked."""
DROP_METER: Final = "virtfleet_drops"


def switch_owner(name: str) -> str:
    """Return the owner of a switch's rows."""
    return f"switch/{name}"


def port_owner(port_id: str) -> str:
    """Return the owner of a card's rows."""
    return f"port/{port_id}"


def group_owner(uid: str) -> str:
    """Return the owner of a security group's rows."""
    return f"group/{uid}"


def network_name(switch: str, vlan: int | None) -> str:
    """Return the name of a switch's logical switch for a VLAN."""
    return switch if vlan is None else f"{switch}.{vlan}"


def network_key(switch: str, vlan: int | None) -> RowKey:
    """Return the logical switch of a VLAN."""
    return RowKey("Logical_Switch", network_name(switch, vlan))


def forward_port(switch: str, vlan: int | None) -> str:
    """Return the name of the port from which nodes reach the guests of a VLAN."""
    return f"{network_name(switch, vlan)}/forward"


def dhcp_key(switch: str, vlan: int | None, version: int) -> RowKey:
    """Return the DHCP options of a VLAN for an IP version."""
    return RowKey("DHCP_Options", f"{network_name(switch, vlan)}/{version}")


def port_group_name(uid: str) -> str:
    """Return a security group's port group: OVN allows letters, digits, "_" and "." in names that matches use."""
    return f"sg_{uid.replace('-', '_')}"


def port_group_key(name: str) -> RowKey:
    """Return a port group's row."""
    return RowKey("Port_Group", name)
