"""SecurityGroup: put its rules into force, and show how many cards they hold for."""

from virtfleet_api.names import NETWORK_FINALIZER
from virtfleet_api.security_group import SecurityGroup
from virtfleet_operator.core.events import network_events
from virtfleet_operator.core.network.plans import build_group
from virtfleet_operator.core.summarise.network import group_says, summarise_group
from virtfleet_operator.core.validate import group_deletion_problems
from virtfleet_operator.core.writes import network_write_due
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import drop_finalizer, hold_finalizer, write_status
from virtfleet_operator.reconcile.virtual_switch import NO_ENGINE
from virtfleet_operator.reconcile.vm_class import problems_of


async def reconcile_group(context: Context, key: Key) -> float | None:
    """Bring a security group one step closer to what its object says."""
    stored = context.cache.get(key)
    if stored is None:
        return None
    group = stored.resource
    if not isinstance(group, SecurityGroup):
        return None  # the schema refuses what would not parse; there is nothing to say it with
    named = (key.namespace, key.name)
    users = group_deletion_problems(group.metadata, context.catalog.group_users(*named))
    if stored.meta.deletion_timestamp and not users:
        await _let_go(context, stored)
        return None
    stored = await hold_finalizer(context, stored, NETWORK_FINALIZER)
    problems = problems_of(context, stored)
    absent = () if problems else put_group(context, group)
    in_the_way = users[0] if users and stored.meta.deletion_timestamp else ""
    says = group_says(
        problems, absent, in_the_way, context.network.obstacle_of_group(stored.uid) if context.network else NO_ENGINE
    )
    members = context.network.members(stored.uid) if context.network else 0
    status = summarise_group(stored.meta, stored.status, says, members, context.clock())
    due = network_write_due(stored.status, status, context.written.get(key), context.clock())
    events = network_events(stored.status.conditions, status.conditions)
    return await write_status(context, stored, status, due, events)


def put_group(context: Context, group: SecurityGroup) -> tuple[str, ...]:
    """Have OVN hold the rules; return which groups they name in vain."""
    plan, absent = build_group(group, context.catalog)
    if context.network:
        context.network.put_group(plan)
    return absent


async def _let_go(context: Context, stored: Stored) -> None:
    if context.network:
        context.network.drop_group(stored.uid)
    if NETWORK_FINALIZER in stored.meta.finalizers:
        await drop_finalizer(context, stored, NETWORK_FINALIZER)
