"""VirtualSwitch: have OVN make it, and show who uses it and which nodes carry it."""

from ipaddress import IPv4Address, ip_address
from typing import Final

from virtfleet_api.names import NETWORK_FINALIZER
from virtfleet_api.virtual_switch import SwitchNode, SwitchType, VirtualSwitch
from virtfleet_operator.core.events import network_events
from virtfleet_operator.core.network.plans import build_switch
from virtfleet_operator.core.network.subnets import parse_range
from virtfleet_operator.core.summarise.network import SwitchFacts, summarise_switch, switch_on_node
from virtfleet_operator.core.validate import overlap_problems, switch_deletion_problems
from virtfleet_operator.core.verdict import quote
from virtfleet_operator.core.writes import network_write_due
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import ADDRESS, BY_SWITCH, NODE
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.ports import authentic
from virtfleet_operator.reconcile.status import drop_finalizer, hold_finalizer, write_status
from virtfleet_operator.reconcile.vm_class import problems_of

NO_ENGINE: Final = "This operator has no OVN: write ovn into its configuration."


async def reconcile_switch(context: Context, key: Key) -> float | None:
    """Bring a switch one step closer to what its object says."""
    stored = context.cache.get(key)
    if stored is None:
        if context.network:
            context.network.drop_switch(key.name)
        return None
    switch = stored.resource
    if not isinstance(switch, VirtualSwitch):
        return None  # the schema refuses what would not parse; there is nothing to say it with
    users = switch_deletion_problems(switch.metadata, context.catalog.switch_users(key.name))
    if stored.meta.deletion_timestamp and not users:
        await _let_go(context, stored)
        return None
    stored = await hold_finalizer(context, stored, NETWORK_FINALIZER)
    problems = problems_of(context, stored) or _overlaps(context, switch)
    if not problems:
        put_switch(context, switch)
    elif context.network:
        context.network.keep_switch(key.name)
    in_the_way = users[0] if users and stored.meta.deletion_timestamp else ""
    return await _write(context, stored, switch, problems, in_the_way)


def put_switch(context: Context, switch: VirtualSwitch) -> None:
    """Have OVN make the switch with the VLANs that its cards use."""
    if context.network is None:
        return
    vlans = {port.vlan for port in context.network.ports_on(switch.metadata.name)}
    nodes = sorted(stored.key.name for stored in context.cache.all(NODE))
    context.network.put_switch(build_switch(switch, vlans, nodes, context.catalog))


async def _let_go(context: Context, stored: Stored) -> None:
    if context.network:
        context.network.drop_switch(stored.key.name)
    if NETWORK_FINALIZER in stored.meta.finalizers:
        await drop_finalizer(context, stored, NETWORK_FINALIZER)


def _overlaps(context: Context, switch: VirtualSwitch) -> tuple[str, ...]:
    """Say which older switch has addresses of this one; of two the elder goes on."""
    elder = [other for other in context.catalog.virtual_switches() if _age(other) < _age(switch)]
    return overlap_problems(switch, elder)


def _age(switch: VirtualSwitch) -> tuple[str, str]:
    created = switch.metadata.creation_timestamp
    return (created.isoformat() if created else "", switch.metadata.name)


async def _write(
    context: Context, stored: Stored, switch: VirtualSwitch, problems: tuple[str, ...], users: str
) -> float | None:
    network = context.network
    facts = SwitchFacts(
        problems=problems,
        ports=len(network.ports_on(stored.key.name)) if network else 0,
        taken=0 if problems else _taken(context, switch),
        nodes=_nodes(context, switch),
        obstacle=network.obstacle_of_switch(stored.key.name) if network else NO_ENGINE,
        way_out=_way_out(context, switch),
        users=users,
    )
    status = summarise_switch(switch, facts, context.clock())
    due = network_write_due(stored.status, status, context.written.get(stored.key), context.clock())
    events = network_events(stored.status.conditions, status.conditions)
    return await write_status(context, stored, status, due, events)


def _way_out(context: Context, switch: VirtualSwitch) -> str:
    """Say what is wrong with the switch that guests shall go out by; empty when nothing is."""
    if switch.spec.outbound is None:
        return ""
    name = switch.spec.outbound.switch
    found = context.catalog.virtual_switch(name)
    if found is not None and found.spec.type is SwitchType.UPLINK:
        return ""
    return f"spec.outbound.switch: there is no VirtualSwitch {quote(name)} of type Uplink: create it or name another"


def _taken(context: Context, switch: VirtualSwitch) -> int:
    if switch.spec.subnet is None:
        return 0
    given = parse_range(switch.spec.subnet)
    found = authentic(context.cache.find(ADDRESS, BY_SWITCH, switch.metadata.name))
    held = (ip_address(one.spec.address) for one in found)
    return sum(1 for a in held if isinstance(a, IPv4Address) and given.holds(a) and given.skips(int(a)) is None)


def _nodes(context: Context, switch: VirtualSwitch) -> tuple[SwitchNode, ...]:
    shown = []
    for name in sorted(stored.key.name for stored in context.cache.all(NODE)):
        state = context.fleet.node(name)
        report = state.report if state and state.contact is Contact.HEARD else None
        shown.append(switch_on_node(switch, name, report))
    return tuple(shown)
