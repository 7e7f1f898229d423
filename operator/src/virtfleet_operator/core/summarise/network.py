"""The status of a VirtualSwitch and of a SecurityGroup."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from virtfleet_api.conditions import ConditionType
from virtfleet_api.report import NodeReport
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.security_group import SecurityGroupStatus
from virtfleet_api.virtual_switch import SwitchNode, VirtualSwitch, VirtualSwitchStatus
from virtfleet_operator.core.network.subnets import parse_range
from virtfleet_operator.core.summarise.bounds import count_of
from virtfleet_operator.core.summarise.conditions import NO, YES, Saying, Says, conditions
from virtfleet_operator.core.verdict import join_problems, plain


@dataclass(frozen=True, slots=True)
class SwitchFacts:
    """What a switch's status is made from."""

    problems: Sequence[str] = ()
    ports: int = 0
    taken: int = 0
    """IPv4 addresses of its subnet that are in use or cooling down."""
    nodes: Sequence[SwitchNode] = ()
    obstacle: str = ""
    """What keeps OVN from being told of it."""
    way_out: str = ""
    """What keeps its way out from working."""
    users: str = ""
    """Who keeps it from going, when it is being deleted."""


def summarise_switch(switch: VirtualSwitch, facts: SwitchFacts, now: datetime) -> VirtualSwitchStatus:
    """Return the status of a switch that parses."""
    meta, spec = switch.metadata, switch.spec
    free = None
    if spec.subnet and not facts.problems:
        free = max(0, parse_range(spec.subnet).size - facts.taken)
    return VirtualSwitchStatus(
        observed_generation=meta.generation,
        ports=count_of(facts.ports),
        addresses_free=None if free is None else min(free, 2**31 - 1),
        nodes=tuple(facts.nodes),
        conditions=conditions(
            switch.status.conditions, now, [Says(ConditionType.READY, *_switch_says(facts, free), meta.generation)]
        ),
    )


def _switch_says(facts: SwitchFacts, free: int | None) -> Saying:
    if facts.problems:
        return NO, "Invalid", join_problems(facts.problems)
    obstacles = {
        "InUse": facts.users,
        "NetworkEngineUnavailable": facts.obstacle,
        "OutboundNotFound": facts.way_out,
    }
    if found := next(((reason, text) for reason, text in obstacles.items() if text), None):
        return NO, *found
    if free == 0:
        return YES, "SubnetExhausted", "All addresses of the subnet are in use or cooling down: enlarge its cidr."
    late = [node for node in facts.nodes if not node.ready]
    if late:
        named = ", ".join(node.name for node in late[:8])
        return YES, "NodesNotReady", f"Machines can use the switch, but not on {named}: see status.nodes."
    return YES, "Ready", "Machines can use the switch."


def switch_on_node(switch: VirtualSwitch, name: str, report: NodeReport | None) -> SwitchNode:
    """Say whether a node carries the switch; without a report nobody knows."""
    problem = _node_problem(switch, report)
    return SwitchNode(name=name, ready=not problem, message=problem or None)


def _node_problem(switch: VirtualSwitch, report: NodeReport | None) -> str:
    if report is None:
        return "The node does not answer."
    network = report.network
    if network is None:
        return "The node has no Open vSwitch: install openvswitch-switch and ovn-host on it."
    if not network.connected:
        return plain(network.problem) or "ovn-controller is not connected to the southbound database."
    uplink = switch.spec.uplink
    if uplink is None:
        return ""
    found = next((one for one in network.uplinks if one.interface == uplink.interface), None)
    return f"{uplink.interface} is not connected yet." if found is None else plain(found.problem)


def summarise_group(
    meta: ObjectMeta, old: SecurityGroupStatus, says: Saying, members: int, now: datetime
) -> SecurityGroupStatus:
    """Return the status of a security group."""
    ready = Says(ConditionType.READY, *says, meta.generation)
    return SecurityGroupStatus(
        observed_generation=meta.generation,
        members=count_of(members),
        conditions=conditions(old.conditions, now, [ready]),
    )


def group_says(problems: Sequence[str], absent: Sequence[str], users: str, obstacle: str) -> Saying:
    """Say whether a group is in force."""
    if problems:
        return NO, "Invalid", join_problems(problems)
    if users:
        return NO, "InUse", users
    if obstacle:
        return NO, "NetworkEngineUnavailable", obstacle
    if absent:
        return NO, "PeerNotFound", f"In force, except for rules that name groups in vain: {join_problems(absent)}"
    return YES, "InForce", "The rules are in force."
