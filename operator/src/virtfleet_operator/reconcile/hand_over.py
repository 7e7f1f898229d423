"""Kept disks change hands: from a machine that goes to VMDisks of their own, and from a VMDisk to another machine.

Each hand-over is written down before the one who had the disk lets go of it, and doing it twice is doing it once.
"""

import logging
from typing import Final

from virtfleet_api.report import RetainedDisk
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_disk import DiskUser, VMDisk, VMDiskPhase, VMDiskSpec
from virtfleet_operator.core.adoption import find_adoptions, pending_adoptions
from virtfleet_operator.core.events import EventText
from virtfleet_operator.core.kept_disks import disk_object, kept_disks
from virtfleet_operator.core.summarise.vm_disk import available, in_use
from virtfleet_operator.core.verdict import Invalid, Waiting, quote
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.errors import ConflictError, RefusedError
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.reconcile.catalog import DISK
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.vm_disk import write_disk

log: Final = logging.getLogger(__name__)

_NAMESPACE_GOES: Final = "because it is being terminated"
"""What the API server says of a new object in a namespace that is being deleted."""


async def hand_over(context: Context, machine: Stored, node: str, kept: tuple[RetainedDisk, ...]) -> Waiting | None:
    """Make a VMDisk for each disk that a machine leaves behind; Waiting when one cannot be made.

    Raises:
        KubeError: the API server did not take one; the machine must stay until it does.
    """
    for disk, spec in kept_disks(machine.meta, node, kept):
        try:
            stored = await _ensure(context, machine.key.namespace, spec)
        except RefusedError as error:
            if _NAMESPACE_GOES not in str(error):
                raise
            extra = {"machine": str(machine.key), "uid": machine.uid, "node": node, "action": "keep"}
            log.warning("The namespace goes, so disk %s in pool %s has no VMDisk", disk.name, disk.pool, extra=extra)
            continue
        if not isinstance(stored.resource, VMDisk) or stored.resource.spec != spec:
            said = f"The VMDisk {quote(stored.key.name)}, which is not of this machine, is in the way: delete it."
            return Waiting("DiskNotHandedOver", said)
        if stored.status.phase is VMDiskPhase.PENDING:
            await write_disk(context, stored, available(disk.capacity_bytes, disk.allocated_bytes))
            text = f"Disk {disk.name} is kept as VMDisk {stored.key.name}."
            context.events.post(machine, EventText("Normal", "DiskKept", text))
    return None


async def take_over(context: Context, vm: VirtualMachine) -> Waiting | Invalid | None:
    """Write into each VMDisk that a machine takes over that it does; say why not when another was first.

    Raises:
        KubeError: the API server did not take it; the node must not be told before it has.
    """
    user = DiskUser(name=vm.metadata.name, uid=vm.metadata.uid)
    for _, _, reference in pending_adoptions(vm):
        found = find_adoptions(vm, context.catalog)  # each time: much may happen during a write
        if isinstance(found, Waiting | Invalid):
            return found
        stored = context.cache.get(Key(DISK, vm.metadata.namespace, reference.name))
        if stored is not None and stored.status.user is None:
            await write_disk(context, stored, in_use(user))
    return None


async def _ensure(context: Context, namespace: str, spec: VMDiskSpec) -> Stored:
    """Return the VMDisk of a disk, made if it is not there."""
    path, body = OUR_PATHS[DISK], disk_object(namespace, spec)
    key = Key(DISK, namespace, body["metadata"]["name"])
    if (found := context.cache.get(key)) is not None:
        return found
    try:
        made = await context.client.create(path.collection(namespace), body)
    except ConflictError:  # made by an operator before this one, or by the look before
        made = await context.client.get(path.object(namespace, key.name))
    context.cache.put(DISK, made)
    return context.cache.get(key) or Stored(key, made)
