"""From a SecurityGroup to a port group and its access rules, and what all switches share.

Priorities, the higher the earlier; conntrack lets packets of a connection that was let through pass before all of them:

* 2000  the drop of what only a DHCP server sends
* 1004  what the nodes themselves send to guests, which an operator has checked the right to
* 1003  DHCP, which a card needs whatever its groups say
* 1002  what a rule of a group allows
* 1001  the same drop as below, for groups that log
* 1000  the drop: into any member, out of the members of a group with `egress`, both ways for isolated cards
*  900  everything out of members: only the drops of groups with `egress` stand before it

So rules of all of a card's groups add up, and `egress` limits a card as soon as one of its groups has it: as
NetworkPolicies of Kubernetes do.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from virtfleet_api.security_group import IntraGroup, Peer, RulePort
from virtfleet_operator.core.network.match import all_of, any_of, from_cidr, in_group, to_ports
from virtfleet_operator.core.network.names import (
    DROP_METER,
    FORWARDS,
    GUARDED,
    ISOLATED,
    MEMBERS,
    port_group_key,
    port_group_name,
)
from virtfleet_operator.core.network.rows import Attachment, Row, RowKey, Value, no_text, one
from virtfleet_operator.core.network.topology import GroupPlan

Direction = Literal["from-lport", "to-lport"]

GUARD: Final = 2000
FORWARD: Final = 1004
DHCP: Final = 1003
ALLOW: Final = 1002
LOGGED_DROP: Final = 1001
DROP: Final = 1000
OUT: Final = 900

LOGGED_PER_SECOND: Final = 10
MAX_ACL_NAME: Final = 63
"""Characters; the database's schema refuses more."""

DHCP_REQUEST: Final = "((ip4 && udp.src == 68 && udp.dst == 67) || (ip6 && udp.src == 546 && udp.dst == 547))"
DHCP_REPLY: Final = "((ip4 && udp.src == 67 && udp.dst == 68) || (ip6 && udp.src == 547 && udp.dst == 546))"


def compile_group(group: GroupPlan) -> list[Row]:
    """Return a group's rows. Who is a member is said by the rows of the cards.

    Raises:
        ValueError: an address of a rule is none.
    """
    name, spec = port_group_name(group.uid), group.spec
    rows = [_port_group(name, {"security-group": f"{group.namespace}/{group.name}"})]
    rows += _allowed(group, "to-lport", [(rule.from_, rule.ports) for rule in spec.ingress])
    if spec.egress is not None:
        rows += _allowed(group, "from-lport", [(rule.to, rule.ports) for rule in spec.egress])
        rows.append(_drop(group, "from-lport"))
    if spec.log_drops:
        rows.append(_drop(group, "to-lport"))
    return list({row.key: row for row in rows}.values())


def compile_common() -> list[Row]:
    """Return what all switches share: the port groups of defaults and guards, and the meter of logs."""
    forwards = port_group_key(FORWARDS)
    return [
        *(_port_group(name, {}) for name in (MEMBERS, ISOLATED, GUARDED, FORWARDS)),
        _acl(MEMBERS, "to-lport", DROP, "ip", "drop"),
        _acl(MEMBERS, "from-lport", OUT, "ip", "allow-related"),
        _acl(ISOLATED, "to-lport", DROP, "ip", "drop"),
        _acl(ISOLATED, "from-lport", DROP, "ip", "drop"),
        *(_acl(name, "from-lport", DHCP, DHCP_REQUEST, "allow") for name in (MEMBERS, ISOLATED)),
        *(_acl(name, "to-lport", DHCP, DHCP_REPLY, "allow") for name in (MEMBERS, ISOLATED)),
        # By the port and not by its address, so that no guest can pose as it, whatever it may send.
        *(
            _acl(name, "to-lport", FORWARD, f"inport == @{FORWARDS} && tcp", "allow-related", frozenset({forwards}))
            for name in (MEMBERS, ISOLATED)
        ),
        # Not router advertisements: northd lets neighbour discovery, and these with it, pass before all rules.
        _guard(DHCP_REPLY),
        *_meter(),
    ]


Rule = tuple[Sequence[Peer], Sequence[RulePort]]


def _allowed(group: GroupPlan, direction: Direction, rules: Sequence[Rule]) -> list[Row]:
    name, side = port_group_name(group.uid), _side(direction)
    rows = [_acl(name, direction, ALLOW, in_group(side, name), "allow-related")] if _is_open(group) else []
    for peers, ports in rules:
        others = [port_group_name(uid) for uid in _groups(group, peers)]
        terms = [from_cidr(side, peer) for peer in peers if peer.cidr is not None]
        terms += [in_group(side, other) for other in others]
        # A rule whose peers are all gone lets nobody through, which is not the same as a rule without peers.
        if terms or not peers:
            match = all_of(any_of(terms) if terms else "ip", to_ports(ports))
            needs = frozenset(map(port_group_key, others))
            rows.append(_acl(name, direction, ALLOW, match, "allow-related", needs))
    return rows


def _is_open(group: GroupPlan) -> bool:
    return group.spec.intra_group is IntraGroup.ALLOW


def _groups(group: GroupPlan, peers: Sequence[Peer]) -> list[str]:
    """Return the UIDs of the groups among the peers that are there and may be named."""
    named = [peer.security_group for peer in peers if peer.security_group is not None]
    found = (group.peers.get((peer.namespace or group.namespace, peer.name)) for peer in named)
    return [uid for uid in found if uid is not None]


def _side(direction: Direction) -> str:
    return "src" if direction == "to-lport" else "dst"


def _port_group(name: str, notes: Mapping[str, str]) -> Row:
    return Row(port_group_key(name), {"name": name}, notes=notes)


def _acl(
    port_group: str,
    direction: Direction,
    priority: int,
    match: str,
    action: str,
    needs: frozenset[RowKey] = frozenset(),
    **columns: Value,
) -> Row:
    """Return an access rule of a port group.

    Its key is made of what it says: a rule that is added before others leaves them, and their connections, alone.
    """
    port = f"outport == @{port_group}" if direction == "to-lport" else f"inport == @{port_group}"
    text = all_of(port, match)
    digest = hashlib.sha256(f"{priority} {action} {direction} {text}".encode()).hexdigest()[:16]
    group = port_group_key(port_group)
    said: dict[str, Value] = {
        "name": no_text(),
        "priority": priority,
        "direction": direction,
        "match": text,
        "action": action,
        "log": False,
        "severity": no_text(),
        "meter": no_text(),
        "options": {},
    }
    return Row(
        RowKey("ACL", f"{port_group}/{digest}"), {**said, **columns}, frozenset({Attachment(group, "acls")}), needs
    )


def _drop(group: GroupPlan, direction: Direction) -> Row:
    """Return the drop of a group's own, for packets out of its members or for those that are logged."""
    name = port_group_name(group.uid)
    if not group.spec.log_drops:
        return _acl(name, direction, DROP, "ip", "drop")
    shown = one(f"{group.namespace}/{group.name}"[:MAX_ACL_NAME])
    meter = frozenset({RowKey("Meter", DROP_METER)})
    logged: dict[str, Value] = {"name": shown, "log": True, "severity": one("info"), "meter": one(DROP_METER)}
    return _acl(name, direction, LOGGED_DROP, "ip", "drop", meter, **logged)


def _guard(match: str) -> Row:
    """Return a drop of what guests have no business to send."""
    return _acl(GUARDED, "from-lport", GUARD, match, "drop")


def _meter() -> list[Row]:
    band = RowKey("Meter_Band", DROP_METER)
    # fair: each group has the rate for itself, so that one under attack does not silence the others.
    fair = frozenset({True})
    meter: dict[str, Value] = {"name": DROP_METER, "unit": "pktps", "bands": frozenset({band}), "fair": fair}
    return [
        Row(RowKey("Meter", DROP_METER), meter),
        Row(band, {"action": "drop", "rate": LOGGED_PER_SECOND, "burst_size": LOGGED_PER_SECOND}),
    ]
