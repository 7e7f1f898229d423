"""Rules about restores: of their own spec, and of what they are about."""

from collections.abc import Iterator

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import SnapshotIndication, SnapshotPhase, VMSnapshot
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.restores import before_name, is_made_by, machine_names, unfinished_restores
from virtfleet_operator.core.validate.vm_snapshot import number_problems, volume_names
from virtfleet_operator.core.verdict import quote

_MAX_NAME = 253


def restore_problems(restore: VMRestore, old: VMRestore | None = None) -> tuple[str, ...]:
    """Check a restore by itself, and what changed of it."""
    if old is not None and restore.spec != old.spec:
        return ("spec: cannot change: write what it was, or make another VMRestore",)
    return tuple(_own_problems(restore))


def _own_problems(restore: VMRestore) -> Iterator[str]:
    target, first = restore.spec.target, restore.spec.snapshot_first
    if (target.virtual_machine is None) == (target.new_virtual_machines is None):
        named = "names both virtualMachine and newVirtualMachines" if target.virtual_machine else "names nothing"
        yield (
            f"spec.target: {named}: write exactly one, such as "
            '"virtualMachine: web-1" or "newVirtualMachines: {namePrefix: web, count: 2}"'
        )
    new = target.new_virtual_machines
    if new is not None and new.reset_machine_id and not restore.spec.memory:
        yield (
            "spec.target.newVirtualMachines.resetMachineId: has no effect on guests that are booted: remove it, or "
            "memory: false"
        )
    if first and target.virtual_machine is None:
        yield "spec.snapshotFirst: has no effect on new machines: remove it"
    if first and len(before_name(restore.metadata.name)) > _MAX_NAME:
        yield (
            f"metadata.name: is too long for the VMSnapshot of the state before, named <this name>-before: "
            f"write at most {_MAX_NAME - len(before_name(''))} characters"
        )


def target_problems(restore: VMRestore, snapshot: VMSnapshot, catalog: Catalog) -> tuple[str, ...]:
    """Say why what a snapshot holds cannot be restored so, whatever is waited for."""
    name = quote(snapshot.metadata.name)
    if snapshot.metadata.deletion_timestamp is not None:
        return (f"spec.snapshot: VMSnapshot {name} is being deleted: name another",)
    if snapshot.status.phase is SnapshotPhase.FAILED:
        return (f"spec.snapshot: VMSnapshot {name} failed, and holds nothing to restore: name another",)
    if restore.spec.target.new_virtual_machines:
        return tuple(_name_problems(restore, catalog))
    return tuple(_machine_problems(restore, snapshot, catalog))


def other_problems(restore: VMRestore, catalog: Catalog) -> tuple[str, ...]:
    """Refuse a second restore of a machine while one has not ended; and a snapshot before it that is one too many."""
    namespace, machine = restore.metadata.namespace, restore.spec.target.virtual_machine
    if machine is None:
        return ()
    others = unfinished_restores(catalog.unfinished_restores(namespace), machine)
    problems = [
        f"spec.target.virtualMachine: VMRestore {other.metadata.name} of VirtualMachine {quote(machine)} has not "
        "ended: wait until it has, or delete it first"
        for other in others
        if other.metadata.name != restore.metadata.name
    ]
    if restore.spec.snapshot_first:
        said = number_problems(catalog.machine_snapshots(namespace, machine), machine)
        problems += [problem.replace("spec.virtualMachine", "spec.snapshotFirst", 1) for problem in said]
    return tuple(problems[:1])


def _name_problems(restore: VMRestore, catalog: Catalog) -> Iterator[str]:
    """Refuse names that are taken, by the first of them."""
    for name in machine_names(restore.spec.target):
        vm = catalog.machine(restore.metadata.namespace, name)
        if vm is not None and not is_made_by(vm.metadata, restore.metadata.uid):
            yield (
                f"spec.target.newVirtualMachines.namePrefix: VirtualMachine {quote(name)} is there already: "
                "write another prefix, or delete that machine first"
            )
            return


def _machine_problems(restore: VMRestore, snapshot: VMSnapshot, catalog: Catalog) -> Iterator[str]:
    named, right = restore.spec.target.virtual_machine or "", snapshot.spec.virtual_machine
    where = "spec.target.virtualMachine"
    if named != right:
        yield (
            f"{where}: VMSnapshot {quote(snapshot.metadata.name)} is of VirtualMachine {quote(right)}, not of "
            f'{quote(named)}: write "{right}", or make new machines with newVirtualMachines'
        )
        return
    vm = catalog.machine(restore.metadata.namespace, named)
    if vm is not None and vm.metadata.deletion_timestamp is not None:
        yield f"{where}: VirtualMachine {quote(named)} is being deleted: make a new one with newVirtualMachines"
    elif vm is not None and snapshot.status.virtual_machine_uid not in (None, vm.metadata.uid):
        yield (
            f"{where}: VirtualMachine {quote(named)} is another than the one that was captured, which is gone: "
            "make new machines with newVirtualMachines"
        )
    elif vm is not None:
        yield from _device_problems(restore, snapshot, vm)


def _device_problems(restore: VMRestore, snapshot: VMSnapshot, vm: VirtualMachine) -> Iterator[str]:
    """Refuse memory for a machine that has devices of the host or volumes now: they are not in the snapshot."""
    devices = [gpu.name for gpu in vm.spec.gpus] + [device.name for device in vm.spec.host_devices]
    if devices and restore.spec.memory and SnapshotIndication.MEMORY in snapshot.status.indications:
        yield (
            f"spec.memory: VirtualMachine {quote(vm.metadata.name)} has device {quote(devices[0])}, whose state is "
            "not in the snapshot's memory: write memory: false, or remove the device from the machine"
        )
    volumes = volume_names(vm)
    if volumes and restore.spec.memory and SnapshotIndication.MEMORY in snapshot.status.indications:
        yield (
            f"spec.memory: VirtualMachine {quote(vm.metadata.name)} has disk {quote(volumes[0])} on a "
            "PersistentVolumeClaim, which is not put back: write memory: false, or remove the disk from the machine"
        )
