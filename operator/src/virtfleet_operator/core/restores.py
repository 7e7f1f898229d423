"""What a VMRestore does: what a machine's node is told of it, and the objects that it makes.

A restore has begun once its status says Restoring; from then on the documents of its machines carry it until it ends.
Names follow from its spec and a label from its UID: one that was cut off and goes on makes nothing twice.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from virtfleet_api.machine import MachineRestore
from virtfleet_api.names import API_VERSION, RESTORE_LABEL
from virtfleet_api.network import Network
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import (
    Disk,
    DiskBus,
    DiskSource,
    SnapshotDiskReference,
    VirtualMachine,
    VirtualMachineSpec,
)
from virtfleet_api.vm_restore import RestorePhase, RestoreTarget, VMRestore
from virtfleet_api.vm_snapshot import SnapshotMode, VMSnapshot, VMSnapshotSpec
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.snapshot_disks import captured_disk
from virtfleet_operator.core.validate.vm_snapshot import volume_names

ENDED: Final = frozenset({RestorePhase.SUCCEEDED, RestorePhase.FAILED})
"""Phases that a restore, and a machine of it, stays in."""

_OLDEST: Final = datetime.min.replace(tzinfo=UTC)
_ADDRESSES: Final = {"mac_address": None, "ip_address": None, "ipv6_address": None}


def machine_names(target: RestoreTarget) -> tuple[str, ...]:
    """Return the names of the machines that a restore is about."""
    if (new := target.new_virtual_machines) is not None:
        return tuple(f"{new.name_prefix}-{number}" for number in range(1, new.count + 1))
    return (target.virtual_machine,) if target.virtual_machine else ()


def is_made_by(meta: ObjectMeta, restore_uid: str) -> bool:
    """Tell whether an object was made by the restore."""
    return meta.labels.get(RESTORE_LABEL) == restore_uid


def unfinished_restores(restores: Iterable[VMRestore], machine: str) -> list[VMRestore]:
    """Return those that have not ended for the machine of this name; the one that goes first is first.

    One that makes new machines counts once it has begun, until it has made this one, whatever the others wait for.
    """
    return sorted((restore for restore in restores if _is_unfinished(restore, machine)), key=_turn)


def _is_unfinished(restore: VMRestore, machine: str) -> bool:
    target, status = restore.spec.target, restore.status
    if status.phase in ENDED or restore.metadata.deletion_timestamp is not None:
        return False
    if target.virtual_machine is None and status.phase is not RestorePhase.RESTORING:
        return False
    ended = any(found.name == machine and found.phase in ENDED for found in status.machines)
    return machine in machine_names(target) and not ended


def _turn(restore: VMRestore) -> tuple[bool, datetime, str]:
    begun = restore.status.phase is RestorePhase.RESTORING
    return not begun, restore.metadata.creation_timestamp or _OLDEST, restore.metadata.name


def machine_restore(vm: VirtualMachine, catalog: Catalog) -> MachineRestore | None:
    """Return the restore that the machine's document carries, None when none of it has begun or all have ended.

    A node remembers only the last that it has served: one that is carried again after another would be done again.
    """
    restores = catalog.unfinished_restores(vm.metadata.namespace)
    for restore in unfinished_restores(restores, vm.metadata.name):
        snapshot = catalog.snapshot(vm.metadata.namespace, restore.spec.snapshot)
        begun = restore.status.phase is RestorePhase.RESTORING
        if begun and snapshot is not None and _is_of(restore, vm):
            new = restore.spec.target.new_virtual_machines
            return MachineRestore(
                token=restore.metadata.uid,
                snapshot_uid=snapshot.metadata.uid,
                memory=restore.spec.memory,
                machine_id=new is not None and new.reset_machine_id,
            )
    return None


def _is_of(restore: VMRestore, vm: VirtualMachine) -> bool:
    """Tell whether a restore that names the machine puts it back, or has made it."""
    return restore.spec.target.virtual_machine is not None or is_made_by(vm.metadata, restore.metadata.uid)


def before_name(restore: str) -> str:
    """Return the name of the VMSnapshot of the state before a restore."""
    return f"{restore}-before"


def before_object(restore: VMRestore, snapshot: VMSnapshot, vm: VirtualMachine) -> dict[str, Any]:
    """Return the VMSnapshot of the state before a restore, as it is created; of all disks, also those left alone."""
    volumes = volume_names(vm)
    disks_alone = bool(vm.spec.gpus or vm.spec.host_devices or volumes)  # with which memory cannot be captured
    spec = VMSnapshotSpec(
        virtual_machine=vm.metadata.name,
        mode=SnapshotMode.DISK if disks_alone else snapshot.spec.mode,
        exclude_disks=volumes,
    )
    return _object(restore, "VMSnapshot", before_name(restore.metadata.name), spec.to_json_dict())


def machine_object(restore: VMRestore, captured: VirtualMachineSpec, snapshot: VMSnapshot, name: str) -> dict[str, Any]:
    """Return a VirtualMachine made from a snapshot, as it is created; `captured` is the spec in the snapshot.

    It belongs to nobody: it stays when restore and snapshot are deleted.
    """
    spec = captured.model_copy(
        update={
            "disks": tuple(_disks(captured, snapshot)),
            "networks": tuple(_without_addresses(nic) for nic in captured.networks),
            "restart_requested_at": None,
        }
    )
    return _object(restore, "VirtualMachine", name, spec.to_json_dict())


def _disks(captured: VirtualMachineSpec, snapshot: VMSnapshot) -> Iterator[Disk]:
    """Yield the drives, and the disks that are in the snapshot, each in the size that it had."""
    for disk in captured.disks:
        if disk.bus is DiskBus.CDROM:
            yield disk
        elif found := captured_disk(snapshot, disk.name):
            reference = SnapshotDiskReference(name=snapshot.metadata.name, disk=disk.name)
            source = DiskSource(snapshot=reference)
            yield disk.model_copy(update={"source": source, "pool": found.pool, "size": None})


def _without_addresses(nic: Network) -> Network:
    return nic.model_copy(update=_ADDRESSES)


def _object(restore: VMRestore, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {RESTORE_LABEL: restore.metadata.uid}
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": restore.metadata.namespace, "labels": labels},
        "spec": spec,
    }
