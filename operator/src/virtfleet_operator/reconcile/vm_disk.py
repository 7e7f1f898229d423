"""VMDisk: say whether a kept disk can be taken over, and let it go once a machine has it or its node has removed it.

A disk's node is asked by the document of the machine that it was made for; what it does not find in a pool that it
can read is not there.
"""

import logging
from typing import Final

from virtfleet_api.names import DISK_FINALIZER
from virtfleet_api.virtual_machine import ReclaimPolicy, VirtualMachine
from virtfleet_api.vm_disk import DiskUser, VMDisk, VMDiskPhase
from virtfleet_operator.core.adoption import pending_adoptions
from virtfleet_operator.core.kept_disks import compile_question, is_readable, is_the_disk
from virtfleet_operator.core.summarise.conditions import NO
from virtfleet_operator.core.summarise.vm_disk import DiskFacts, available, in_use, summarise_disk
from virtfleet_operator.core.verdict import join_problems
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.reconcile.catalog import DISK, MACHINE, NODE
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import drop_finalizer, hold_finalizer, write_status
from virtfleet_operator.reconcile.vm_class import problems_of

log: Final = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 10.0
"""Between looks at a disk whose node cannot read its pool: nothing tells when it can."""

_NOT_HANDED_OVER: Final = (
    "The operator has not handed this disk over: it makes VMDisks itself, when a machine with disks to retain is "
    "deleted. Delete this object if you made it."
)


async def reconcile_disk(context: Context, key: Key) -> float | None:
    """Bring a VMDisk one step closer to its end, and its status to what is."""
    stored = context.cache.get(key)
    if stored is None:
        return None
    if stored.status.phase is VMDiskPhase.PENDING:
        return await _wait_for_hand_over(context, stored)
    problems = problems_of(context, stored)
    if not isinstance(stored.resource, VMDisk) or problems:
        said = (NO, "Invalid", join_problems(problems))
        return await write_disk(context, stored, DiskFacts(stored.status.phase, said, stored.status.user))
    if context.cache.get(Key(NODE, "", stored.resource.spec.node_name)) is None:
        return await _lose(context, stored, stored.resource)
    held = await hold_finalizer(context, stored, DISK_FINALIZER)  # somebody may have removed it by hand
    return await _advance(context, held, stored.resource)


async def _advance(context: Context, stored: Stored, disk: VMDisk) -> float | None:
    """Bring a disk on that was handed over and whose node is in the fleet."""
    user = disk.status.user
    if user is not None and _is_wanted(context, disk, user):
        return await write_disk(context, stored, in_use(user))
    if stored.meta.deletion_timestamp is not None:
        return await _remove(context, stored, disk) if DISK_FINALIZER in stored.meta.finalizers else None
    if user is None:
        return await write_disk(context, stored, available())
    return await _settle(context, stored, disk, user)


async def write_disk(context: Context, stored: Stored, facts: DiskFacts) -> float | None:
    """Write the status of a VMDisk if it differs."""
    now = context.clock()
    status = summarise_disk(stored.meta, facts, stored.status, now)
    return await write_status(context, stored, status, None if status == stored.status else now, ())


async def _wait_for_hand_over(context: Context, stored: Stored) -> float | None:
    """Touch no file for an object that anybody may have made."""
    if stored.meta.deletion_timestamp is None:
        facts = DiskFacts(VMDiskPhase.PENDING, (NO, "NotHandedOver", _NOT_HANDED_OVER))
        return await write_disk(context, stored, facts)
    if DISK_FINALIZER in stored.meta.finalizers:
        await drop_finalizer(context, stored, DISK_FINALIZER)
    return None


async def _lose(context: Context, stored: Stored, disk: VMDisk) -> float | None:
    """Say that the disk's node left the fleet; its file stays there, whatever becomes of the object."""
    if stored.meta.deletion_timestamp is None:
        said = f"Node {disk.spec.node_name} left the fleet, and the disk with it; bring it back, or delete this object."
        return await write_disk(context, stored, DiskFacts(VMDiskPhase.LOST, (NO, "NodeGone", said), disk.status.user))
    if DISK_FINALIZER in stored.meta.finalizers:
        _log(stored, "its node left the fleet; the file stays there")
        await drop_finalizer(context, stored, DISK_FINALIZER)
    return None


def _is_wanted(context: Context, disk: VMDisk, user: DiskUser) -> bool:
    """Tell whether the machine may still take the disk: it says so, or its node may not know yet that it does not."""
    machine = next(iter(context.cache.find(MACHINE, "uid", user.uid)), None)
    if machine is None:
        return False
    vm = machine.resource
    if not isinstance(vm, VirtualMachine):
        return True
    names = {reference.name for _, _, reference in pending_adoptions(vm)}
    return disk.metadata.name in names or vm.status.observed_generation < vm.metadata.generation


async def _settle(context: Context, stored: Stored, disk: VMDisk, user: DiskUser) -> float | None:
    """Find out what became of a disk that its user wants no more: taken, or still there."""
    there = await _ask(context, disk, ReclaimPolicy.RETAIN)
    if isinstance(there, str):
        await write_disk(context, stored, in_use(user, there))
        return LOOK_AGAIN_SECONDS
    if there:
        await write_disk(context, stored, available())
        return None
    _log(stored, f"VirtualMachine {user.name} has taken it over")
    await context.client.delete(OUR_PATHS[DISK].object(stored.key.namespace, stored.key.name))
    return None


async def _remove(context: Context, stored: Stored, disk: VMDisk) -> float | None:
    there = await _ask(context, disk, ReclaimPolicy.DELETE)
    if there is False:
        _log(stored, "its node has removed it")
        await drop_finalizer(context, stored, DISK_FINALIZER)
        return None
    said = there if isinstance(there, str) else "The node is removing the disk."
    await write_disk(context, stored, DiskFacts(stored.status.phase, (NO, "Removing", said), disk.status.user))
    return LOOK_AGAIN_SECONDS


async def _ask(context: Context, disk: VMDisk, policy: ReclaimPolicy) -> bool | str:
    """Have the node look for the disk, or remove it; return whether it is there, or why nobody knows."""
    spec, node = disk.spec, disk.spec.node_name
    state = context.fleet.node(node)
    if state is None or state.report is None or state.contact is not Contact.HEARD:
        return f"Node {node} does not answer; this goes on once it does."
    if spec.former_machine.uid in state.machines:  # it is not to be removed for the sake of its disk
        return f"Node {node} still has machine {spec.former_machine.name}, whose disk this was."
    if not is_readable(spec.pool, state.report.pools):
        return f"Node {node} cannot read pool {spec.pool}; this goes on once it can."
    await context.fleet.put_machine(node, compile_question(disk.metadata.namespace, spec, policy))
    kept = state.gone.get(spec.former_machine.uid)
    state.forget(spec.former_machine.uid)
    if kept is None:
        return f"Node {node} has not said yet what there is of machine {spec.former_machine.name}."
    return is_the_disk(spec, kept)


def _log(stored: Stored, reason: str) -> None:
    extra = {"disk": str(stored.key), "uid": stored.uid, "action": "release", "reason": reason}
    log.info("Releasing %s", stored.key, extra=extra)
