"""The end of a VirtualMachine: its node removes it, then its finalizer goes.

The finalizer goes without a word of the node in two cases only: nothing was ever bound, or the VMNode was deleted. In
the second the machine, should its node come back, is an orphan: shown and kept.
"""

import logging
from typing import Final

from virtfleet_api.names import FINALIZER
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.binding import Binding, Lost, Unbound
from virtfleet_operator.core.compile import compile_deletion
from virtfleet_operator.core.effective import resolve
from virtfleet_operator.core.verdict import Waiting
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import NODE
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.machine_status import write_machine
from virtfleet_operator.reconcile.status import drop_finalizer

log: Final = logging.getLogger(__name__)


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
    if contact is Contact.HEARD and await _is_removed(context, stored, where.node_name):
        await _let_go(context, stored, "its node has removed it")
        return None
    return await write_machine(context, stored, where.node_name, None)


async def _is_removed(context: Context, stored: Stored, node: str) -> bool:
    """Instruct the node unless it has said already that the machine is gone."""
    state = context.fleet.node(node)
    if state and stored.uid not in state.gone:
        vm = stored.resource
        if isinstance(vm, VirtualMachine):
            sizing = resolve(vm, context.catalog.class_of(vm))
            await context.fleet.put_machine(node, compile_deletion(vm, sizing, context.catalog))
        else:
            await context.fleet.delete_machine(node, stored.uid)
    return bool(state and stored.uid in state.gone)


async def _let_go(context: Context, stored: Stored, reason: str) -> None:
    extra = {"machine": str(stored.key), "uid": stored.uid, "action": "release", "reason": reason}
    log.info("Releasing %s", stored.key, extra=extra)
    await drop_finalizer(context, stored, FINALIZER)
