"""Rows of OVN's northbound database as values, and what is done to make them so.

A row of ours says in its `external_ids` which one it is and whose: that is how it is found again after a restart. A row
without these is somebody else's and is never touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

KEY_ID: Final = "virtfleet"
"""Key in `external_ids` under which a row's stable name is."""
OWNER_ID: Final = "virtfleet-owner"
"""Key in `external_ids` under which the owner is: the object that the row is for."""


class RowKey(NamedTuple):
    """A row of ours: unlike its UUID, known before it is written."""

    table: str
    name: str


class Attachment(NamedTuple):
    """A place where a row is listed: a column of another row."""

    parent: RowKey
    column: str


Scalar = str | int | bool
Value = Scalar | frozenset[str] | frozenset[int] | frozenset[bool] | frozenset[RowKey] | Mapping[str, str | int]
"""A column's value. An optional one is a set of at most one member, as in OVSDB itself."""
Columns = Mapping[str, Value]

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "Logical_Switch": ("name", "other_config"),
    "Logical_Switch_Port": (
        "name",
        "type",
        "options",
        "tag",
        "addresses",
        "port_security",
        "enabled",
        "dhcpv4_options",
        "dhcpv6_options",
    ),
    "Port_Group": ("name",),
    "ACL": ("name", "priority", "direction", "match", "action", "log", "severity", "meter", "options"),
    "QoS": ("priority", "direction", "match", "bandwidth"),
    "DHCP_Options": ("cidr", "options"),
    "DNS": ("records",),
    "Logical_Router": ("name", "options"),
    "Logical_Router_Port": ("name", "mac", "networks"),
    "Gateway_Chassis": ("name", "chassis_name", "priority"),
    "Logical_Router_Static_Route": ("ip_prefix", "nexthop"),
    "Logical_Router_Policy": ("priority", "match", "action"),
    "NAT": ("type", "external_ip", "logical_ip"),
    "Meter": ("name", "unit", "bands", "fair"),
    "Meter_Band": ("action", "rate", "burst_size"),
}
"""The tables that are written, and what of them: a row gives all of these, so that nothing of an earlier life stays."""

LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "Logical_Switch": ("ports", "qos_rules", "dns_records"),
    "Port_Group": ("ports", "acls"),
    "Logical_Router": ("ports", "static_routes", "policies", "nat"),
    "Logical_Router_Port": ("gateway_chassis",),
}
"""Columns that list other rows. They are never written as a whole: members come and go one by one."""

WEAK_LISTS: Final = frozenset({("Logical_Switch", "dns_records"), ("Port_Group", "ports")})
"""Lists whose members live without them; the database itself strikes a deleted row from them."""

ROOTS: Final = frozenset({"Logical_Switch", "Port_Group", "DHCP_Options", "DNS", "Logical_Router", "Meter"})
"""Tables whose rows are there until deleted; any other row goes when nothing lists it any more."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it shall be."""

    key: RowKey
    columns: Columns
    attached: frozenset[Attachment] = frozenset()
    """Where it is listed. It is not written before all of these rows are there."""
    needs: frozenset[RowKey] = frozenset()
    """Rows that its text names. Without them it would be an error to OVN, so it goes when one of them goes."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """For people who look into the database: further `external_ids`."""

    def external_ids(self, owner: str) -> dict[str, str]:
        """Return what marks the row as ours."""
        return {KEY_ID: self.key.name, OWNER_ID: owner, **self.notes}


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of ours as it is."""

    uuid: str
    key: RowKey
    columns: Columns
    attached: frozenset[Attachment]

    @property
    def is_root(self) -> bool:
        """Whether it stays until it is deleted."""
        return self.key.table in ROOTS


@dataclass(frozen=True, slots=True)
class Insert:
    """Write a new row."""

    key: RowKey
    columns: Columns


@dataclass(frozen=True, slots=True)
class Update:
    """Write some columns of a row that is there."""

    uuid: str
    key: RowKey
    columns: Columns


@dataclass(frozen=True, slots=True)
class AddReference:
    """List a row in a column of another; a new one is named by its key."""

    parent: RowKey
    column: str
    child: RowKey


@dataclass(frozen=True, slots=True)
class RemoveReference:
    """Strike a row from a column of another."""

    parent: RowKey
    column: str
    child: RowKey
    uuid: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a row that stays until deleted."""

    uuid: str
    key: RowKey


Operation = Insert | Update | AddReference | RemoveReference | Delete


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """What to write in one transaction."""

    operations: tuple[Operation, ...]
    waiting: Mapping[str, frozenset[RowKey]]
    """Rows that are not there yet, by the owner who needs them."""


def one(value: str) -> frozenset[str]:
    """Return an optional text that is there."""
    return frozenset({value})


def no_text() -> frozenset[str]:
    """Return an optional text that is not there."""
    return frozenset()
