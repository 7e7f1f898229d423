"""What the disks of a machine may grow to, by pool: promised like CPUs and memory, where a pool has a limit."""

from collections import Counter
from collections.abc import Iterable, Mapping

from virtfleet_api.virtual_machine import Disk, DiskBus, VirtualMachine
from virtfleet_operator.core.catalog import Catalog, image_key
from virtfleet_operator.core.snapshot_disks import captured_disk


def disk_sizes(vm: VirtualMachine, catalog: Catalog) -> Mapping[str, int]:
    """Return the sizes in bytes of all disks, by pool; one whose image or snapshot is not known yet has none."""
    return _sums(vm, vm.spec.disks, catalog)


def missing_sizes(vm: VirtualMachine, catalog: Catalog) -> Mapping[str, int]:
    """Return the sizes of those disks that the machine's node has not reported."""
    known = {(disk.pool, disk.name) for disk in vm.status.disks}
    return _sums(vm, (disk for disk in vm.spec.disks if (disk.pool, disk.name) not in known), catalog)


def _sums(vm: VirtualMachine, disks: Iterable[Disk], catalog: Catalog) -> Mapping[str, int]:
    sums: Counter[str] = Counter()
    for disk in disks:
        if disk.bus is DiskBus.CDROM:
            continue  # its medium is an image, which is counted for itself
        if disk.source.pvc is not None:
            continue  # it is in no pool
        sums[disk.pool] += _size(vm, disk, catalog)
    return dict(sums)


def _size(vm: VirtualMachine, disk: Disk, catalog: Catalog) -> int:
    if disk.size is not None:
        return int(disk.size)
    if (reference := disk.source.snapshot) is not None:
        snapshot = catalog.snapshot(vm.metadata.namespace, reference.name)
        captured = captured_disk(snapshot, reference.disk) if snapshot else None
        return int(captured.capacity) if captured else 0
    if disk.source.image is None:
        return 0
    image = catalog.image(*image_key(vm, disk.source.image))
    return int(image.status.virtual_size or 0) if image else 0
