"""The end of a VirtualMachine: its node removes it, what is kept becomes VMDisks, then its finalizer goes.

The finalizer goes without a word of the node in two cases only: nothing was ever bound, or the VMNode was deleted. In
the second the machine, should its node come back, is an orphan: shown and kept.
"""

import logging
from typing import Final

from virtfleet_api.names import FINALIZER
from virtfleet_api.report import RetainedDisk
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.binding import Binding, Lost, Unbound
from virtfleet_operator.core.compile import compile_deletion
from virtfleet_operator.core.effective import resolve
from virtfleet_operator.core.kept_disks import compile_bare_deletion, unreadable_pools
from virtfleet_operator.core.verdict import Waiting, plain
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.errors import InvalidError, RefusedError
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import NODE
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.hand_over import hand_over
from virtfleet_operator.reconcile.machine_status import write_machine
from virtfleet_operator.reconcile.status import drop_finalizer
from virtfleet_operator.reconcile.volumes import release_volumes

log: Final = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 10.0
"""Between looks at what keeps a machine from handing its disks over: nothing tells when it is out of the way."""


async def remove_machine(context: Context, stored: Stored, where: Binding) -> float | None:
    """Have the node remove the machine, and let the object go once it has."""
    if FINALIZER not in stored.meta.finalizers:
        return None
    if isinstance(where, Lost):
        return await write_machine(context, stored, None, Waiting("BindingLost", where.message))
    if isinstance(where, Unbound) or context.cache.get(Key(NODE, "", where.node_name)) is None:
        await _let_go(context, stored, "no node has it")
        return None
    contact = context.fleet.contact(where.node_name)
    if contact is Contact.CONNECTING:
        return None  # the node's snapshot, or the end of patience, wakes this machine
    if contact is Contact.HEARD:
        kept = await _remove(context, stored, where.node_name)
        if kept is not None:
            return await _hand_over(context, stored, where.node_name, kept)
    return await write_machine(context, stored, where.node_name, None)


async def _hand_over(context: Context, stored: Stored, node: str, kept: tuple[RetainedDisk, ...]) -> float | None:
    """Let the machine go once each disk that it leaves behind is an object of its own."""
    if (waiting := _unread(context, stored, node, kept)) is None:
        try:
            waiting = await hand_over(context, stored, node, kept)
        except (RefusedError, InvalidError) as error:
            said = f"A disk that is kept could not be made a VMDisk: {plain(str(error))}"
            await write_machine(context, stored, node, Waiting("DiskNotHandedOver", said))
            raise
    if waiting is None:
        await _let_go(context, stored, "its node has removed it")
        return None
    delay = await write_machine(context, stored, node, waiting)
    return min(LOOK_AGAIN_SECONDS, delay or LOOK_AGAIN_SECONDS)


def _unread(context: Context, stored: Stored, node: str, kept: tuple[RetainedDisk, ...]) -> Waiting | None:
    """Wait while the node cannot read a pool with disks to be kept: it does not know that they are there."""
    state = context.fleet.node(node)
    pools = state.report.pools if state and state.report else ()
    vm = stored.resource
    missing = unreadable_pools(vm, kept, pools) if isinstance(vm, VirtualMachine) else ()
    if not missing or state is None:
        return None
    state.forget(stored.uid)  # so that it is asked again
    said = f"Node {node} cannot read pool {missing[0]}, in which a disk is to be kept: the machine goes once it can."
    return Waiting("PoolNotReadable", said)


async def _remove(context: Context, stored: Stored, node: str) -> tuple[RetainedDisk, ...] | None:
    """Instruct the node unless it has said already that the machine is gone; return what it has kept then."""
    state = context.fleet.node(node)
    if state and stored.uid not in state.gone:
        vm = stored.resource
        if isinstance(vm, VirtualMachine):
            sizing = resolve(vm, context.catalog.class_of(vm))
            await context.fleet.put_machine(node, compile_deletion(vm, sizing, context.catalog))
        else:
            await context.fleet.delete_machine(node, stored.uid)
    if state and stored.uid in state.gone and state.gone[stored.uid] is None:
        await context.fleet.put_machine(node, compile_bare_deletion(stored.meta))
    return state.gone.get(stored.uid) if state else None


async def _let_go(context: Context, stored: Stored, reason: str) -> None:
    extra = {"machine": str(stored.key), "uid": stored.uid, "action": "release", "reason": reason}
    log.info("Releasing %s", stored.key, extra=extra)
    await release_volumes(context, stored)
    await drop_finalizer(context, stored, FINALIZER)
