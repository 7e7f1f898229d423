"""From the disks that a machine leaves behind to their VMDisks, and from a VMDisk to what its node is asked."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic import ValidationError

from virtfleet_api.machine import ExistingSource, Hardware, Machine, MachineDisk, Run
from virtfleet_api.names import API_VERSION, DISK_FINALIZER, FIELD_MANAGER, MANAGED_BY_LABEL
from virtfleet_api.report import PoolReport, RetainedDisk
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import ReclaimPolicy, VirtualMachine
from virtfleet_api.vm_disk import FormerMachine, VMDiskSpec
from virtfleet_operator.core.validate.disk_object import disk_object_name

MOST_KEPT: Final = 256
"""Disks of one machine; a node that tells of more is not to be believed."""

_UNKNOWN_MEMORY: Final = 2**20  # of a machine that is gone; the document must name some


def kept_disks(
    former: ObjectMeta, node: str, kept: Sequence[RetainedDisk]
) -> Iterator[tuple[RetainedDisk, VMDiskSpec]]:
    """Return the disks that a machine leaves behind, each with the spec of its VMDisk.

    What has a name that no disk of ours can have was put there by somebody else, and is left alone.
    """
    machine = FormerMachine(name=former.name, uid=former.uid)
    for disk in kept[:MOST_KEPT]:
        with suppress(ValidationError):
            yield disk, VMDiskSpec(node_name=node, pool=disk.pool, disk=disk.name, former_machine=machine)


def disk_object(namespace: str, spec: VMDiskSpec) -> dict[str, Any]:
    """Return the VMDisk to create."""
    metadata = {
        "name": disk_object_name(spec),
        "namespace": namespace,
        "labels": {MANAGED_BY_LABEL: FIELD_MANAGER},
        "finalizers": [DISK_FINALIZER],
    }
    return {"apiVersion": API_VERSION, "kind": "VMDisk", "metadata": metadata, "spec": spec.to_json_dict()}


def compile_question(namespace: str, spec: VMDiskSpec, policy: ReclaimPolicy) -> Machine:
    """Compile the document that asks a node for a disk without a machine: with Retain it tells, with Delete it removes.

    It is that of the former machine, which shall be absent, with this disk alone: a node keeps what a document does
    not name.
    """
    disk = MachineDisk(name=spec.disk, pool=spec.pool, source=ExistingSource(), reclaim_policy=policy)
    former = spec.former_machine
    return _absent(namespace, former.name, former.uid, (disk,))


def compile_bare_deletion(meta: ObjectMeta) -> Machine:
    """Compile the document that asks what is left of a machine whose spec nobody understands."""
    return _absent(meta.namespace, meta.name, meta.uid, ())


def unreadable_pools(
    vm: VirtualMachine, kept: Iterable[RetainedDisk], pools: Collection[PoolReport]
) -> tuple[str, ...]:
    """Return the pools of disks to be kept of which the node says nothing, and which it has but cannot read now."""
    told = {(disk.pool, disk.name) for disk in kept}
    own = (disk for disk in vm.spec.disks if disk.source.pvc is None)
    wanted = {(d.pool, d.name) for d in own if d.reclaim_policy is ReclaimPolicy.RETAIN}
    known = {report.name for report in pools}
    return tuple(sorted({pool for pool, _ in wanted - told if pool in known and not is_readable(pool, pools)}))


def is_readable(pool: str, pools: Collection[PoolReport]) -> bool:
    """Tell whether a node can read a pool, so that what it does not find there is not there."""
    return any(report.name == pool and report.capacity_bytes > 0 for report in pools)


def is_the_disk(spec: VMDiskSpec, kept: Iterable[RetainedDisk]) -> bool:
    """Tell whether a VMDisk's disk is among those that its node has kept."""
    return any((disk.pool, disk.name) == (spec.pool, spec.disk) for disk in kept)


def _absent(namespace: str, name: str, uid: str, disks: tuple[MachineDisk, ...]) -> Machine:
    hardware = Hardware(memory_bytes=_UNKNOWN_MEMORY, disks=disks)
    return Machine(uid=uid, namespace=namespace, name=name, run=Run.ABSENT, hardware=hardware)
