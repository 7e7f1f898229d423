"""VMRestore: put a machine back to a snapshot, or make new machines from one.

That it has begun is written down before any node is told or any machine made; the machines' documents carry the
restore from then on (`core.restores`), and what their nodes say of it comes back here.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

from virtfleet_api.conditions import ConditionStatus, ConditionType
from virtfleet_api.machine import Run
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_restore import RestoredMachine, RestorePhase, VMRestore
from virtfleet_api.vm_snapshot import SnapshotPhase, VMSnapshot
from virtfleet_operator.core.compile import run_of
from virtfleet_operator.core.events import restore_events
from virtfleet_operator.core.restores import (
    ENDED,
    before_name,
    before_object,
    is_made_by,
    machine_names,
    machine_object,
    unfinished_restores,
)
from virtfleet_operator.core.summarise.vm_restore import (
    MachineView,
    RestoreFacts,
    restored_machine,
    summarise_restore,
)
from virtfleet_operator.core.validate.vm_restore import target_problems
from virtfleet_operator.core.verdict import Waiting, join_problems, plain, quote
from virtfleet_operator.core.writes import restore_write_due
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.errors import ConflictError, InvalidError, RefusedError
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.reconcile.catalog import MACHINE, SNAPSHOT, bound_node
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import write_status
from virtfleet_operator.reconcile.vm_class import problems_of

log: Final = logging.getLogger(__name__)


class _EndsError(Exception):
    """The restore has failed before anything was touched."""


async def reconcile_vm_restore(context: Context, key: Key) -> float | None:
    """Bring a restore one step closer to its end, and its status to what the nodes say."""
    stored = context.cache.get(key)
    if stored is None or stored.meta.deletion_timestamp is not None or stored.status.phase in ENDED:
        return None
    restore, problems = stored.resource, problems_of(context, stored)
    if not isinstance(restore, VMRestore):
        return await _write(context, stored, RestoreFacts(waiting=Waiting("Invalid", join_problems(problems))))
    if stored.status.phase is RestorePhase.RESTORING:
        return await _go_on(context, stored, restore)
    return await _begin(context, stored, restore, problems)


async def _begin(context: Context, stored: Stored, restore: VMRestore, problems: tuple[str, ...]) -> float | None:
    """Write down that the restore has begun, once nothing is in its way."""
    waiting: Waiting | None = None
    failure = Waiting("Invalid", join_problems(problems)) if problems else None
    machines: tuple[RestoredMachine, ...] = ()
    try:
        waiting = None if failure else await _obstacle(context, stored, restore)
    except _EndsError as error:
        failure = Waiting("Failed", str(error))
    if waiting is None and failure is None:
        phase = RestorePhase.RESTORING if restore.spec.target.virtual_machine else RestorePhase.PENDING
        machines = tuple(RestoredMachine(name=name, phase=phase) for name in machine_names(restore.spec.target))
        extra = {"restore": str(stored.key), "uid": stored.uid, "action": "restore"}
        log.info("Restoring %d machines from %s", len(machines), restore.spec.snapshot, extra=extra)
    # From the written status on, the machines' documents carry the restore; the write makes this object be looked at.
    facts = RestoreFacts(restore.spec.snapshot, waiting, failure, machines, _before(context, stored))
    return await _write(context, stored, facts)


async def _obstacle(context: Context, stored: Stored, restore: VMRestore) -> Waiting | None:
    """Return what the restore waits for before it begins, None for nothing.

    Raises:
        _EndsError: it can never begin.
    """
    name = quote(restore.spec.snapshot)
    snapshot = context.catalog.snapshot(stored.key.namespace, restore.spec.snapshot)
    if snapshot is None:
        return Waiting("SnapshotNotFound", f"There is no VMSnapshot {name}; it is restored once it is there.")
    if problems := target_problems(restore, snapshot, context.catalog):
        raise _EndsError(join_problems(problems))
    if not snapshot.status.ready_to_use:
        return Waiting("SnapshotNotReady", f"VMSnapshot {name} is not ready to use: see its condition Ready.")
    if restore.spec.target.virtual_machine:
        return await _machine_obstacle(context, stored, restore, snapshot)
    if snapshot.status.virtual_machine_spec is None:
        raise _EndsError(f"VMSnapshot {name} does not say what its machine was like: name another.")
    return None


async def _machine_obstacle(
    context: Context, stored: Stored, restore: VMRestore, snapshot: VMSnapshot
) -> Waiting | None:
    """Return what keeps a machine from being put back now, with its present state captured if that is wanted."""
    machine = restore.spec.target.virtual_machine or ""
    others = unfinished_restores(context.catalog.unfinished_restores(stored.key.namespace), machine)
    if others and others[0].metadata.uid != stored.uid:
        said = f"VMRestore {others[0].metadata.name} of VirtualMachine {quote(machine)} goes first."
        return Waiting("OtherRestore", said)
    found = context.cache.get(Key(MACHINE, stored.key.namespace, machine))
    if found is None:
        said = "make new machines with spec.target.newVirtualMachines"
        raise _EndsError(f"VirtualMachine {quote(machine)} is gone: {said}.")
    if not isinstance(found.resource, VirtualMachine):
        return Waiting("MachineInvalid", f"VirtualMachine {quote(machine)} is not valid: see its condition Ready.")
    if not restore.spec.snapshot_first:
        return None
    return await _capture_before(context, stored, before_object(restore, snapshot, found.resource))


async def _capture_before(context: Context, stored: Stored, body: dict[str, Any]) -> Waiting | None:
    """Have the present state captured; None once it is.

    Raises:
        _EndsError: that failed.
    """
    name = body["metadata"]["name"]
    before = await _made(context, stored, SNAPSHOT, body)
    if before is None or not is_made_by(before.meta, stored.uid):
        raise _EndsError(f"VMSnapshot {name}, which is not of this restore, is in the way: delete it.")
    ready = next((c.message for c in before.status.conditions if c.type == ConditionType.READY), "")
    if before.meta.deletion_timestamp is not None:
        raise _EndsError(f"VMSnapshot {name} of the present state is being deleted.")
    if before.status.phase is SnapshotPhase.FAILED:
        raise _EndsError(f"The present state could not be captured, and nothing was touched: {ready}")
    if not before.status.ready_to_use:
        return Waiting("Capturing", f"The present state is captured first, as VMSnapshot {name}: {ready}".strip(": "))
    return None


async def _made(context: Context, stored: Stored, kind: str, body: dict[str, Any]) -> Stored | None:
    """Return the object of that name, made if it is not there; whose it is its label says.

    Raises:
        _EndsError: the API server refuses it.
    """
    key, path = Key(kind, stored.key.namespace, body["metadata"]["name"]), OUR_PATHS[kind]
    if (found := context.cache.get(key)) is not None:
        return found
    try:
        made = await context.client.create(path.collection(key.namespace), body)
    except ConflictError:  # made by a look that was cut off, or by somebody else
        made = await context.client.get(path.object(key.namespace, key.name))
    except (InvalidError, RefusedError) as error:
        raise _EndsError(f"{kind} {key.name} could not be made: {plain(str(error))}") from error
    context.cache.put(kind, made)
    return context.cache.get(key)


def _before(context: Context, stored: Stored) -> str | None:
    """Return the name of the VMSnapshot of the state before, once there is one."""
    found = context.cache.get(Key(SNAPSHOT, stored.key.namespace, before_name(stored.key.name)))
    return found.key.name if found is not None and is_made_by(found.meta, stored.uid) else None


async def _go_on(context: Context, stored: Stored, restore: VMRestore) -> float | None:
    """Make the machines that are still to be made, and see how far each is."""
    snapshot = context.catalog.snapshot(stored.key.namespace, restore.spec.snapshot)
    machines = [await _advance(context, stored, restore, snapshot, machine) for machine in stored.status.machines]
    return await _write(context, stored, RestoreFacts(snapshot=restore.spec.snapshot, machines=tuple(machines)))


async def _advance(
    context: Context, stored: Stored, restore: VMRestore, snapshot: VMSnapshot | None, machine: RestoredMachine
) -> RestoredMachine:
    if machine.phase is RestorePhase.PENDING:
        captured = snapshot.status.virtual_machine_spec if snapshot else None
        if snapshot is None or captured is None:
            return _fail(machine, "The VMSnapshot is gone.")
        try:
            found = await _made(context, stored, MACHINE, machine_object(restore, captured, snapshot, machine.name))
        except _EndsError as error:
            return _fail(machine, str(error))
        if found is None or not is_made_by(found.meta, stored.uid):
            return _fail(machine, "A VirtualMachine of this name, which is not of this restore, is in the way.")
    return restored_machine(machine, stored.uid, _see(context, stored, snapshot, machine.name))


def _fail(machine: RestoredMachine, message: str) -> RestoredMachine:
    return machine.model_copy(update={"phase": RestorePhase.FAILED, "message": message})


def _see(context: Context, stored: Stored, snapshot: VMSnapshot | None, name: str) -> MachineView:
    """Return what is known of a machine that the restore puts back, or has made."""
    found = context.cache.get(Key(MACHINE, stored.key.namespace, name))
    if found is None or found.meta.deletion_timestamp is not None:
        return MachineView(there=False)
    captured = snapshot.status.virtual_machine_uid if snapshot else None
    if not is_made_by(found.meta, stored.uid) and captured not in (None, found.uid):
        return MachineView(there=False)  # another of the same name
    node = found.status.node_name or bound_node(found)
    state = context.fleet.node(node) if node else None
    report = state.machines.get(found.uid) if state else None
    return MachineView(
        there=True,
        node_name=node or None,
        heard=bool(node) and context.fleet.contact(node) is Contact.HEARD,
        report=report.restore if report else None,
        obstacle=_what_is_wrong(found),
        off=isinstance(found.resource, VirtualMachine) and run_of(found.resource) is Run.STOPPED,
    )


def _what_is_wrong(machine: Stored) -> str:
    """Return what the machine's own conditions complain of."""
    conditions: Sequence[Any] = machine.status.conditions
    bad = (c for c in conditions if c.type == ConditionType.READY and c.status != ConditionStatus.TRUE)
    return next((condition.message for condition in bad), "")


async def _write(context: Context, stored: Stored, facts: RestoreFacts) -> float | None:
    status = summarise_restore(stored.meta, stored.status, facts, context.clock())
    due = restore_write_due(stored.status, status, context.written.get(stored.key))
    return await write_status(context, stored, status, due, restore_events(stored.status, status))
