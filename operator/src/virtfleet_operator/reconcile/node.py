"""VMNode: keep a stream to the node, and show what it reports and what it is promised."""

from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.events import node_events
from virtfleet_operator.core.orphans import find_orphans
from virtfleet_operator.core.summarise import NodeFacts, summarise_node
from virtfleet_operator.core.writes import node_write_due
from virtfleet_operator.fleet.state import Contact, NodeState
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import MACHINE, bound_node
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import write_status
from virtfleet_operator.reconcile.vm_class import problems_of


async def reconcile_node(context: Context, key: Key) -> float | None:
    """Follow the node at its address and write its status."""
    stored = context.cache.get(key)
    if stored is None:
        context.fleet.drop(key.name)
        return None
    address = stored.status.address
    if address:
        context.fleet.ensure(key.name, address)
    state = context.fleet.node(key.name)
    if state and state.contact is Contact.CONNECTING:
        return None  # a snapshot or the end of patience comes within seconds
    if not isinstance(stored.resource, VMNode):
        return None  # the schema refuses what would not parse; there is nothing to say it with
    return await _write(context, stored, stored.resource, state)


async def _write(context: Context, stored: Stored, node: VMNode, state: NodeState | None) -> float | None:
    facts = NodeFacts(
        problems=problems_of(context, stored),
        report=state.report if state else None,
        heard=bool(state and state.contact is Contact.HEARD),
        address=stored.status.address,
        load=context.loads.of(stored.key.name),
        orphans=_orphans(context, state) if state else (),
    )
    status = summarise_node(node, facts, context.clock())
    due = node_write_due(stored.status, status, context.written.get(stored.key))
    return await write_status(context, stored, status, due, node_events(stored.status, status))


def _orphans(context: Context, state: NodeState) -> tuple[str, ...]:
    bindings: dict[str, str | None] = {}
    for uid in state.machines:
        for stored in context.cache.find(MACHINE, "uid", uid):
            bindings[uid] = bound_node(stored) or None
    return find_orphans(state.name, state.machines.values(), bindings)
