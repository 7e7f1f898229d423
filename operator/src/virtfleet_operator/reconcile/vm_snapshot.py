"""VMSnapshot: have the machine's node capture it once, show what it holds, and have it removed.

Which node, which machine and its spec are written down before the node is told; from then on the machine's object is
not needed any more.
"""

import logging
from typing import Final

from virtfleet_api.names import SNAPSHOT_FINALIZER
from virtfleet_api.node_api import ProblemReason
from virtfleet_api.snapshot import SnapshotReport
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_snapshot import SnapshotDeletionPolicy, VMSnapshot
from virtfleet_operator.core.events import snapshot_events
from virtfleet_operator.core.snapshots import compile_removal, compile_snapshot
from virtfleet_operator.core.summarise.vm_snapshot import SETTLED, SnapshotFacts, Told, summarise_snapshot
from virtfleet_operator.core.validate.vm_snapshot import capture_problems, number_problems
from virtfleet_operator.core.verdict import Waiting, join_problems, quote
from virtfleet_operator.core.writes import snapshot_write_due
from virtfleet_operator.fleet.errors import NodeError, NodeRefusedError, StaleEpochError
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.reconcile.catalog import BY_SNAPSHOT, IMAGE, MACHINE, NODE, SNAPSHOT, bound_node
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import drop_finalizer, hold_finalizer, write_status
from virtfleet_operator.reconcile.vm_class import problems_of

log: Final = logging.getLogger(__name__)


async def reconcile_snapshot(context: Context, key: Key) -> float | None:
    """Bring a snapshot one step closer to being captured or removed, and its status to what its node says."""
    stored = context.cache.get(key)
    if stored is None:
        return None
    if stored.meta.deletion_timestamp is not None:
        return await _remove(context, stored)
    snapshot, problems = stored.resource, problems_of(context, stored)
    if not isinstance(snapshot, VMSnapshot) or problems:
        return await _write(context, stored, problems=problems)
    if await _goes_with_machine(context, stored, snapshot):
        extra = {"snapshot": str(key), "uid": stored.uid, "action": "delete", "reason": "its machine is deleted"}
        log.info("Deleting %s", key, extra=extra)
        await context.client.delete(OUR_PATHS[SNAPSHOT].object(key.namespace, key.name), version=str(stored.version))
        return None
    if stored.status.node_name is None:
        told = _choose(context, stored, snapshot)
        if isinstance(told, Waiting):
            return await _write(context, stored, waiting=told)
        # What the node is told follows from what is written down, so that it is told the same after a crash.
        await _write(context, stored, told=told)
        stored = context.cache.get(key) or stored
    return await _keep(context, stored, snapshot)


def _choose(context: Context, stored: Stored, snapshot: VMSnapshot) -> Told | Waiting:
    """Return the node of the machine, with the machine as it is now, or what it waits for."""
    namespace, name = stored.key.namespace, snapshot.spec.virtual_machine
    machine = context.cache.get(Key(MACHINE, namespace, name))
    if machine is None or machine.meta.deletion_timestamp is not None:
        return Waiting("MachineNotFound", f"There is no VirtualMachine {quote(name)}; it is captured once it is there.")
    vm = machine.resource
    if not isinstance(vm, VirtualMachine):
        return Waiting("MachineInvalid", f"VirtualMachine {quote(name)} is not valid: see its condition Ready.")
    if problems := _problems(context, snapshot, vm):
        return Waiting("Invalid", join_problems(problems))
    return _find_node(context, machine, vm)


def _find_node(context: Context, machine: Stored, vm: VirtualMachine) -> Told | Waiting:
    """Return the machine's node, if it has made the machine."""
    name, node = quote(vm.metadata.name), machine.status.node_name or bound_node(machine)
    if not node:
        return Waiting("NotScheduled", f"VirtualMachine {name} is on no node yet; it is captured once it is.")
    state = context.fleet.node(node)
    if state is None or state.contact is not Contact.HEARD:
        return Waiting("NodeNotHeard", f"Node {node} does not answer; the machine is captured once it does.")
    if machine.uid not in state.machines:
        return Waiting("MachineNotMade", f"Node {node} has not made VirtualMachine {name} yet.")
    return Told(node, machine.uid, vm.spec)


def _problems(context: Context, snapshot: VMSnapshot, vm: VirtualMachine) -> tuple[str, ...]:
    """Say what keeps the machine from being captured so; those snapshots count that came first."""
    others = context.catalog.machine_snapshots(*vm.key)
    earlier = (other for other in others if other.key != snapshot.key and other.status.node_name is not None)
    return (*capture_problems(snapshot.spec, vm), *number_problems(earlier, vm.metadata.name))


async def _keep(context: Context, stored: Stored, snapshot: VMSnapshot) -> float | None:
    """Tell the node to capture, until it says how that ended; once it has, it is told nothing more."""
    node, uid = stored.status.node_name, stored.status.virtual_machine_uid
    if context.fleet.contact(node) is Contact.CONNECTING:
        return None  # the node's snapshot, or the end of patience, wakes this object
    report = _report(context, stored)
    there = bool(uid and context.cache.find(MACHINE, "uid", uid))
    waiting: Waiting | None = None
    failure: NodeError | None = None
    settled = stored.status.phase in SETTLED or (report is not None and report.phase in SETTLED)
    stored = await hold_finalizer(context, stored, SNAPSHOT_FINALIZER)
    if not settled and (there or report is not None) and context.fleet.contact(node) is Contact.HEARD:
        try:
            await context.fleet.put_snapshot(node, compile_snapshot(snapshot, str(uid)))
        except StaleEpochError:
            raise
        except NodeRefusedError as error:
            waiting, failure = Waiting("Refused", str(error)), error
        except NodeError as error:
            failure = error
    delay = await _write(context, stored, waiting=waiting)
    if failure:
        raise failure  # the queue tries again, later and later
    return delay


async def _goes_with_machine(context: Context, stored: Stored, snapshot: VMSnapshot) -> bool:
    """Tell whether the machine is deleted and its snapshots with it; asked of the API server before it is believed."""
    if snapshot.spec.deletion_policy is SnapshotDeletionPolicy.RETAIN:
        return False
    namespace, name = stored.key.namespace, snapshot.spec.virtual_machine
    machine, uid = context.cache.get(Key(MACHINE, namespace, name)), stored.status.virtual_machine_uid
    if uid is None and (machine is None or machine.meta.deletion_timestamp is None):
        return False  # of a machine that is to come
    if machine is not None and machine.uid == uid and machine.meta.deletion_timestamp is None:
        return False
    try:
        found = (await context.client.get(OUR_PATHS[MACHINE].object(namespace, name)))["metadata"]
    except NotFoundError:
        return True
    return bool(found.get("deletionTimestamp")) or (uid is not None and found["uid"] != uid)


async def _remove(context: Context, stored: Stored) -> float | None:
    """Have the node remove what it holds, and let the object go once it has."""
    if SNAPSHOT_FINALIZER not in stored.meta.finalizers:
        return None
    if said := _who_needs_it(context, stored):
        return await _write(context, stored, waiting=Waiting("InUse", said))
    nodes = [node for node in _holders(context, stored) if context.cache.get(Key(NODE, "", node)) is not None]
    silent: str | None = None
    for node in nodes:
        if context.fleet.contact(node) is Contact.CONNECTING:
            return None  # the node's snapshot, or the end of patience, wakes this object
        if context.fleet.contact(node) is Contact.HEARD:
            await _tell_removal(context, stored, node)
        if context.fleet.contact(node) is not Contact.HEARD:
            silent = node
    if silent is not None:
        said = f"Node {silent} does not answer; what was captured is removed once it does."
        return await _write(context, stored, waiting=Waiting("NodeNotHeard", said))
    if any(state.name in nodes and stored.uid in state.snapshots for state in context.fleet):
        return await _write(context, stored)
    extra = {"snapshot": str(stored.key), "uid": stored.uid, "action": "release", "reason": "no node holds it"}
    log.info("Releasing %s", stored.key, extra=extra)
    await drop_finalizer(context, stored, SNAPSHOT_FINALIZER)
    return None


def _who_needs_it(context: Context, stored: Stored) -> str:
    """Say what a snapshot has to stay for: a restore, or an image that its node has been asked to make; or nothing."""
    if restores := context.catalog.snapshot_restores(stored.key.namespace, stored.key.name):
        return f"It is removed once VMRestore {restores[0]} has ended."
    state = context.fleet.node(stored.status.node_name) if stored.status.node_name else None
    images = context.cache.find(IMAGE, BY_SNAPSHOT, f"{stored.key.namespace}/{stored.key.name}")
    begun = next((image.key.name for image in images if state and image.uid in state.images), None)
    return f"It is removed once VMImage {begun} is made, or deleted." if begun else ""


async def _tell_removal(context: Context, stored: Stored, node: str) -> None:
    report = _report(context, stored)
    machine = stored.status.virtual_machine_uid or (report.machine_uid if report else stored.uid)
    # The node refuses what differs from what it has stored, but for `present`.
    document = (
        compile_snapshot(stored.resource, machine).model_copy(update={"present": False})
        if isinstance(stored.resource, VMSnapshot)
        else compile_removal(stored.key.namespace, stored.key.name, stored.uid, machine)
    )
    try:
        await context.fleet.put_snapshot(node, document)
    except NodeRefusedError as error:
        if error.reason is not ProblemReason.NOT_FOUND:
            await _write(context, stored, waiting=Waiting("Refused", str(error)))
            raise


def _holders(context: Context, stored: Stored) -> list[str]:
    """Return the node that was told of it, and any other that has it all the same."""
    reporting = [state.name for state in context.fleet if stored.uid in state.snapshots]
    told = [stored.status.node_name] if stored.status.node_name else []
    return list(dict.fromkeys((*told, *reporting)))


def _report(context: Context, stored: Stored) -> SnapshotReport | None:
    """Return what the snapshot's own node says of it; another has no say."""
    state = context.fleet.node(stored.status.node_name) if stored.status.node_name else None
    return state.snapshots.get(stored.uid) if state else None


async def _write(
    context: Context,
    stored: Stored,
    *,
    problems: tuple[str, ...] = (),
    waiting: Waiting | None = None,
    told: Told | None = None,
) -> float | None:
    node, uid, report = stored.status.node_name, stored.status.virtual_machine_uid, _report(context, stored)
    facts = SnapshotFacts(
        problems=problems,
        waiting=waiting,
        told=told,
        report=report,
        heard=node is None or context.fleet.contact(node) is Contact.HEARD,
        left=node is not None and context.cache.get(Key(NODE, "", node)) is None,
        machine_gone=uid is not None and not context.cache.find(MACHINE, "uid", uid),
        parent=_parent(context, stored, report),
    )
    status = summarise_snapshot(stored.meta, stored.status, facts, context.clock())
    due = snapshot_write_due(stored.status, status, context.written.get(stored.key))
    return await write_status(context, stored, status, due, snapshot_events(stored.status, status))


def _parent(context: Context, stored: Stored, report: SnapshotReport | None) -> str | None:
    """Return the name of the VMSnapshot before this one, also when that has been deleted meanwhile."""
    if report is None or report.parent_uid is None:
        return None
    parents = context.cache.find(SNAPSHOT, "uid", report.parent_uid)
    return parents[0].key.name if parents else stored.status.parent
