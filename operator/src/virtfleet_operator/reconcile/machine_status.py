"""The status of a VirtualMachine, written when it is due: from create to Running that is once."""

from datetime import datetime

from virtfleet_api.virtual_machine_status import PrintableStatus, VirtualMachineStatus
from virtfleet_operator.core.events import machine_events
from virtfleet_operator.core.summarise import MachineFacts, summarise_machine
from virtfleet_operator.core.verdict import Invalid, Unschedulable, Waiting
from virtfleet_operator.core.writes import is_transitional, machine_write_due
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import write_status

Verdict = Invalid | Waiting | Unschedulable | None


async def write_machine(context: Context, stored: Stored, node: str | None, verdict: Verdict) -> float | None:
    """Write the status if it differs and is due; return after how many seconds to look again."""
    state = context.fleet.node(node) if node else None
    facts = MachineFacts(
        verdict=verdict,
        node_name=node,
        node_heard=bool(state and state.contact is Contact.HEARD),
        report=state.machines.get(stored.uid) if state else None,
        ports=tuple(context.network.ports_of(stored.uid)) if context.network else (),
    )
    old: VirtualMachineStatus = stored.status
    status = summarise_machine(stored.meta, old, facts, context.clock())
    due = machine_write_due(old, status, _since(context, stored, status), context.written.get(stored.key))
    delay = await write_status(context, stored, status, due, machine_events(old, status))
    if due is not None and delay is None:
        _observe_start(context, stored, old, status)
    return delay


def _since(context: Context, stored: Stored, status: VirtualMachineStatus) -> datetime:
    """Return since when the machine passes through the state it is in."""
    now = context.clock()
    word = str(status.printable_status)
    known = context.passing.get(stored.key)
    if known and known[0] == word:
        return known[1]
    if is_transitional(status):
        context.passing[stored.key] = (word, now)
    else:
        context.passing.pop(stored.key, None)
    return now


def _observe_start(context: Context, stored: Stored, old: VirtualMachineStatus, new: VirtualMachineStatus) -> None:
    created = stored.meta.creation_timestamp
    first = old.machine is None and new.printable_status == PrintableStatus.RUNNING
    if first and created:
        context.metrics.start_time.observe(max(0.0, (context.clock() - created).total_seconds()))
