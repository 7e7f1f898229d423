"""VMNode: keep a stream to the node, and show what it reports and what it is promised."""

from collections.abc import Iterator

from virtfleet_api.node_api import ProblemReason
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.events import node_events
from virtfleet_operator.core.network.nodes import compile_node_network
from virtfleet_operator.core.orphans import find_orphans
from virtfleet_operator.core.pools import compile_pools
from virtfleet_operator.core.summarise import NodeFacts, summarise_node
from virtfleet_operator.core.writes import node_write_due
from virtfleet_operator.fleet.errors import NodeError, NodeRefusedError, StaleEpochError
from virtfleet_operator.fleet.state import Contact, NodeState
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import MACHINE, NODE, bound_node
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
    failure: NodeError | None = None
    try:
        await _instruct(context, stored, stored.resource, state)
    except StaleEpochError:
        raise
    except NodeError as error:
        failure = error
    refused = str(failure) if isinstance(failure, NodeRefusedError) else ""
    delay = await _write(context, stored, stored.resource, state, refused)
    if failure:
        raise failure  # the queue tries again, later and later
    return delay


async def _instruct(context: Context, stored: Stored, node: VMNode, state: NodeState | None) -> None:
    """Tell the node which pools and networks it shall have.

    A daemon too old to know of pools is none of a problem while there are none.
    """
    if state is None or state.contact is not Contact.HEARD or problems_of(context, stored):
        return
    try:
        await context.fleet.put_pools(stored.key.name, compile_pools(node))
    except NodeRefusedError as error:
        if error.reason is not ProblemReason.NOT_FOUND or node.spec.pools:
            raise
    if context.network is not None and state.report is not None and state.report.network is not None:
        # Without peers a node has no firewall: one that does not know the operators would lock them out.
        addresses = (*context.operator_addresses, *fleet_addresses(context)) if context.operator_addresses else ()
        network = compile_node_network(context.catalog.virtual_switches(), addresses)
        await context.fleet.put_network(stored.key.name, network)


def fleet_addresses(context: Context) -> Iterator[str]:
    """Yield the addresses of all nodes, and of the ends of their tunnels.

    They are as last written down: a node that this leader has not heard has guests, and tunnels, all the same.
    """
    for stored in context.cache.all(NODE):
        yield (stored.status.address or "").rpartition(":")[0].strip("[]")
        yield stored.status.tunnel_address or ""


async def _write(context: Context, stored: Stored, node: VMNode, state: NodeState | None, refused: str) -> float | None:
    facts = NodeFacts(
        problems=problems_of(context, stored),
        pools_refused=refused,
        report=state.report if state else None,
        heard=bool(state and state.contact is Contact.HEARD),
        address=stored.status.address,
        load=context.loads.of(stored.key.name),
        orphans=_orphans(context, state) if state else (),
        device_rules=context.device_rules,
        machine_names={m.uid: f"{m.namespace}/{m.name}" for m in state.machines.values()} if state else {},
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
