"""Rules about the disks of a machine.

What a disk is made from and where it lies cannot change once it exists. That it exists is read from the status, which
the operator alone writes, so these rules hold also for an object that was stored while the webhook was down.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from virtfleet_api.names import DEFAULT_POOL
from virtfleet_api.quantity import Bytes
from virtfleet_api.virtual_machine import Clone, Disk, DiskBus, DiskSource, ReclaimPolicy, VirtualMachine
from virtfleet_api.virtual_machine_status import DiskStatus
from virtfleet_operator.core.validate.io_tune import group_problems, io_tune_problems
from virtfleet_operator.core.verdict import quote

MIN_DISK: Final = Bytes(2**20)
"""Less holds no file system; a smaller figure is a forgotten unit."""

MAX_DISK: Final = Bytes(64 * 2**40)
"""A sparse file costs metadata for its whole size: beyond this the qcow2 tables alone fill a small pool."""

MAX_SATA: Final = 5
"""The AHCI controller has six ports; one is kept for the cloud-init medium."""


def disk_problems(vm: VirtualMachine, old: VirtualMachine | None) -> Iterator[str]:
    """Check the disks and drives of a machine, and what changed of the disks that exist."""
    disks = vm.spec.disks
    yield from _repeated(disks)
    yield from _too_many_sata(disks)
    yield from _named_twice(disks)
    yield from group_problems(disks)
    existing = {disk.name: disk for disk in vm.status.disks}
    before = {disk.name: disk for disk in old.spec.disks} if old else {}
    for index, disk in enumerate(disks):
        where = f"spec.disks[{index}]"
        if disk.bus == DiskBus.CDROM:
            yield from _drive_problems(where, disk)
        else:
            yield from _source_problems(where, disk)
            yield from _claim_problems(where, disk)
            yield from _size_problems(where, disk)
            yield from _itself(where, vm, disk)
            yield from io_tune_problems(f"{where}.ioTune", disk.io_tune)
        if disk.boot_order is not None and vm.spec.kernel_boot:
            yield f"{where}.bootOrder: has no effect with kernelBoot: remove one of the two"
        if disk.name in existing:
            yield from _change_problems(where, disk, existing[disk.name], before.get(disk.name))


def _repeated(disks: tuple[Disk, ...]) -> Iterator[str]:
    names: Counter[str] = Counter()
    orders: Counter[int] = Counter()
    for index, disk in enumerate(disks):
        names[disk.name] += 1
        if names[disk.name] == 2:  # noqa: PLR2004  the second of a name is the one to rename
            yield f"spec.disks[{index}].name: {quote(disk.name)} is used twice: write a name that no other disk has"
        if disk.boot_order is None:
            continue
        orders[disk.boot_order] += 1
        if orders[disk.boot_order] == 2:  # noqa: PLR2004  as above
            free = next(n for n in range(1, 65) if n not in {d.boot_order for d in disks})
            yield f"spec.disks[{index}].bootOrder: {disk.boot_order} is used twice: write another, such as {free}"


def _too_many_sata(disks: tuple[Disk, ...]) -> Iterator[str]:
    on_sata = [index for index, disk in enumerate(disks) if disk.bus in (DiskBus.SATA, DiskBus.CDROM)]
    if len(on_sata) > MAX_SATA:
        where = f"spec.disks[{on_sata[MAX_SATA]}].bus"
        yield (
            f"{where}: is the {len(on_sata)}th on sata, drives included, which holds {MAX_SATA}: "
            'write "virtio" or "scsi"'
        )


def _itself(where: str, vm: VirtualMachine, disk: Disk) -> Iterator[str]:
    if disk.source.disk is not None and disk.source.disk.virtual_machine == vm.metadata.name:
        yield f"{where}.source.disk: is a disk of this machine itself: name another machine"


def _drive_problems(where: str, disk: Disk) -> Iterator[str]:
    """Refuse what means nothing for a drive: it holds an ISO image or nothing."""
    source = disk.source
    if any(value is not None for _, value in _first_contents(source)) or source.clone:
        yield f'{where}.source: is no medium of a drive: write "iso: {{name: debian-12}}", or {{}} for an empty drive'
    if disk.size is not None:
        yield f"{where}.size: has no effect on a drive: remove it"
    if disk.io_tune is not None:
        yield f"{where}.ioTune: has no effect on a drive: remove it"


def _source_problems(where: str, disk: Disk) -> Iterator[str]:
    source = disk.source
    if source.iso:
        yield f"{where}.source.iso: goes into a drive: write bus: cdrom, or name an image of type Disk in source.image"
        return
    given = [name for name, value in _first_contents(source) if value is not None]
    if len(given) != 1:
        said = f"names {' and '.join(given)}" if given else "names neither image, disk, vmDisk, snapshot, blank nor pvc"
        yield f'{where}.source: {said}: write exactly one, such as "image: {{name: debian-12}}" or "blank: {{}}"'
    elif source.blank is not None and source.clone is not None:
        yield f"{where}.source.clone: has no effect on a blank disk: remove it"
    if given == ["blank"] and disk.size is None:
        yield f'{where}.size: is missing, and a blank disk has no size of its own: write one, such as "20Gi"'


def _first_contents(source: DiskSource) -> tuple[tuple[str, object], ...]:
    return (
        ("image", source.image),
        ("disk", source.disk),
        ("vmDisk", source.vm_disk),
        ("snapshot", source.snapshot),
        ("blank", source.blank),
        ("pvc", source.pvc),
    )


def _claim_problems(where: str, disk: Disk) -> Iterator[str]:
    """Refuse what means nothing for a volume of Kubernetes', which is neither made nor kept here."""
    if disk.source.pvc is None:
        return
    if disk.source.clone is not None:
        yield f"{where}.source.clone: has no effect on a PersistentVolumeClaim, which is used as it is: remove it"
    if disk.pool != DEFAULT_POOL:
        yield f"{where}.pool: has no effect on a PersistentVolumeClaim, which is in no pool: remove it"
    if disk.reclaim_policy is not ReclaimPolicy.DELETE:
        yield f"{where}.reclaimPolicy: has no effect on a PersistentVolumeClaim, which always stays: remove it"


def _named_twice(disks: tuple[Disk, ...]) -> Iterator[str]:
    """Refuse two disks that would be one and the same."""
    seen: set[tuple[str, str]] = set()
    for index, disk in enumerate(disks):
        source = disk.source
        named = [("vmDisk", source.vm_disk.name)] if source.vm_disk else []
        named += [("pvc", source.pvc.claim_name)] if source.pvc else []
        for field, name in named:
            if (field, name) in seen:
                where = f"spec.disks[{index}].source.{field}"
                yield f"{where}: {quote(name)} is named twice: write another, or remove the disk"
            seen.add((field, name))


def _size_problems(where: str, disk: Disk) -> Iterator[str]:
    if disk.size is not None and disk.size < MIN_DISK:
        yield f'{where}.size: \'{disk.size}\' is too small for a disk: write at least "{MIN_DISK}", such as "20Gi"'
    if disk.size is not None and disk.size > MAX_DISK:
        yield f"{where}.size: '{disk.size}' is more than a disk can have: write at most \"{MAX_DISK}\""


def _change_problems(where: str, disk: Disk, existing: DiskStatus, before: Disk | None) -> Iterator[str]:
    """Refuse what cannot be done to a disk that exists."""
    other = "add a new disk under another name"
    volume = disk.source.pvc is not None  # in no pool, and of whatever size
    if disk.pool != existing.pool and not volume:
        yield (
            f"{where}.pool: cannot change from {quote(existing.pool)} to {quote(disk.pool)} once the disk exists: "
            f'write "{existing.pool}", or {other}'
        )
    if disk.size is not None and disk.size < existing.capacity and not volume:
        yield (
            f"{where}.size: '{disk.size}' would shrink the disk, which loses data: "
            f'write at least "{existing.capacity}", or {other}'
        )
    if before is not None and disk.source != before.source and not _flattens(before, disk):
        yield f"{where}.source: cannot change once the disk exists: write what it was, or {other}"


def _flattens(before: Disk, disk: Disk) -> bool:
    """Tell whether all that changes is that a disk shall need its image no more."""
    return (
        disk.source.clone is Clone.FULL
        and disk.source.model_copy(update={"clone": before.source.clone}) == before.source
    )
