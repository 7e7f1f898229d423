"""Rules about snapshots: of their own spec, and of the machine that they are of."""

from collections.abc import Iterable, Iterator, Sequence

from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import DiskBus, VirtualMachine
from virtfleet_api.vm_snapshot import MAX_SNAPSHOTS, SnapshotMode, SnapshotPhase, VMSnapshot, VMSnapshotSpec
from virtfleet_operator.core.verdict import quote


def snapshot_problems(snapshot: VMSnapshot, old: VMSnapshot | None = None) -> tuple[str, ...]:
    """Check a snapshot by itself, and what changed of it."""
    changeable = {"deletion_policy": snapshot.spec.deletion_policy}
    if old is not None and snapshot.spec != old.spec.model_copy(update=changeable):
        return ("spec: cannot change, but for deletionPolicy: write what it was, or make another VMSnapshot",)
    return tuple(_double_problems(snapshot.spec.exclude_disks))


def _double_problems(names: Sequence[str]) -> Iterator[str]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"spec.excludeDisks[{index}]: {quote(name)} is there twice: remove one of them"


def capture_problems(spec: VMSnapshotSpec, vm: VirtualMachine) -> tuple[str, ...]:
    """Say why a machine cannot be captured so."""
    return tuple(_capture_problems(spec, vm))


def _capture_problems(spec: VMSnapshotSpec, vm: VirtualMachine) -> Iterator[str]:
    machine = quote(vm.metadata.name)
    disks = [disk.name for disk in vm.spec.disks if disk.bus is not DiskBus.CDROM and disk.source.pvc is None]
    volumes = volume_names(vm)
    if not disks:
        yield (f"spec.virtualMachine: VirtualMachine {machine} has no disk that could hold a snapshot: add one")
        return
    for index, name in enumerate(spec.exclude_disks):
        if name not in (*disks, *volumes):
            yield (
                f"spec.excludeDisks[{index}]: {quote(name)} is no disk of VirtualMachine {machine}: "
                f"write one of {', '.join((*disks, *volumes))}, or remove it"
            )
    if set(disks) <= set(spec.exclude_disks):
        yield "spec.excludeDisks: leaves out every disk: remove one of them"
    devices = [gpu.name for gpu in vm.spec.gpus] + [device.name for device in vm.spec.host_devices]
    if devices and spec.mode is SnapshotMode.MEMORY:
        yield (
            f"spec.mode: VirtualMachine {machine} has device {quote(devices[0])}, which cannot be captured with "
            "memory: write mode: Disk"
        )
    yield from _volume_problems(spec, machine, volumes)


def _volume_problems(spec: VMSnapshotSpec, machine: str, volumes: Sequence[str]) -> Iterator[str]:
    """Refuse what would need to capture volumes of Kubernetes'."""
    if volumes and spec.mode is SnapshotMode.MEMORY:
        yield (
            f"spec.mode: VirtualMachine {machine} has disk {quote(volumes[0])} on a PersistentVolumeClaim, which "
            "cannot be captured with memory: write mode: Disk"
        )
    if missing := [name for name in volumes if name not in spec.exclude_disks]:
        wanted = ", ".join(dict.fromkeys((*spec.exclude_disks, *missing)))
        yield (
            f"spec.excludeDisks: disk {quote(missing[0])} of VirtualMachine {machine} is on a PersistentVolumeClaim, "
            f'which is not captured: write "excludeDisks: [{wanted}]"'
        )


def volume_names(vm: VirtualMachine) -> tuple[str, ...]:
    """Return the disks that are volumes of Kubernetes'."""
    return tuple(disk.name for disk in vm.spec.disks if disk.source.pvc is not None)


def number_problems(snapshots: Iterable[VMSnapshot], machine: str) -> tuple[str, ...]:
    """Refuse one more snapshot of a machine that has as many as it may; `snapshots` are the others of its name."""
    held = [snapshot for snapshot in snapshots if is_counted(snapshot)]
    if len(held) < MAX_SNAPSHOTS:
        return ()
    said = f"VirtualMachine {quote(machine)} has {len(held)} snapshots, and a machine has {MAX_SNAPSHOTS} at most"
    return (f"spec.virtualMachine: {said}: delete one of them first",)


def is_counted(snapshot: VMSnapshot) -> bool:
    """Tell whether a snapshot counts: one that failed, or goes, holds nothing for long."""
    return snapshot.metadata.deletion_timestamp is None and snapshot.status.phase is not SnapshotPhase.FAILED


def snapshot_deletion_problems(meta: ObjectMeta, restores: Sequence[str]) -> tuple[str, ...]:
    """Say which VMRestore keeps a snapshot from being deleted."""
    if not restores:
        return ()
    more = f" and {len(restores) - 1} more" if len(restores) > 1 else ""
    said = f"VMSnapshot {meta.name} is being restored by VMRestore {restores[0]}{more}"
    return (f"{said}: wait until it has ended, or delete it first",)
