"""Which disks of a document a running guest has, and which could be given to it or taken from it.

What the guest has is read from its domain and never remembered: a disk that was detached behind the daemon's back, or
by a daemon that died in between, is as it is seen.
"""

from collections.abc import Iterable
from pathlib import Path

from virtfleet_api.machine import Hardware, MachineDisk, VolumeSource
from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.desired.io_tune import build_tuning, effective
from virtfleet_node.core.observed import AttachedDisk, Observed
from virtfleet_node.core.places import assign, disk_key
from virtfleet_node.core.volumes import claim_key


def attached(disk: MachineDisk, observed: Observed) -> AttachedDisk | None:
    """Return what a running guest has of a disk or drive."""
    if disk.is_drive:
        return next((seen for seen in observed.domain.disks if seen.drive == disk.name), None)
    if isinstance(disk.source, VolumeSource):
        return attached_volume(disk.name, disk.source, observed.domain.disks)
    stored = observed.stored_disk(disk)
    path = str(stored.path) if stored else None
    return next((seen for seen in observed.domain.disks if seen.file == path and not seen.drive), None)


def attached_volume(name: str, source: VolumeSource, disks: Iterable[AttachedDisk]) -> AttachedDisk | None:
    """Return what a running guest has of a volume: known by its claim, as another pod may hold it by now."""
    return next((seen for seen in disks if (seen.volume, seen.claim) == (name, claim_key(source))), None)


def is_inserted(drive: MachineDisk, seen: AttachedDisk) -> bool:
    """Tell whether a drive has the medium it shall have: an image's folder is named by its UID."""
    return (Path(seen.file).parent.name if seen.file else None) == drive.medium_uid


def limits_differ(disk: MachineDisk, seen: AttachedDisk) -> bool:
    """Tell whether a disk of a running guest has other limits than its document says."""
    return effective(build_tuning(disk)) != effective(dict(seen.tuning))


def limits_field(disk: MachineDisk) -> str:
    """Return what `Hardware.deferred` calls a disk's limits."""
    return f"disks[{disk.name}].limits"


def unwanted(hardware: Hardware, observed: Observed) -> tuple[AttachedDisk, ...]:
    """Return the disks of the machine that a running guest has and its document does not; foreign ones are not ours."""
    wanted = {(disk.pool, disk.name) for disk in hardware.own_disks}
    doomed = {str(disk.path) for disk in observed.disks if (disk.pool, disk.name) not in wanted}
    claims = {(v.name, claim_key(v.source)) for v in hardware.volumes if isinstance(v.source, VolumeSource)}
    return tuple(
        seen
        for seen in observed.domain.disks
        if not seen.drive and ((seen.volume, seen.claim) not in claims if seen.volume else seen.file in doomed)
    )


def attachable(disk: MachineDisk, hardware: Hardware, observed: Observed) -> bool:
    """Tell whether a disk can be given to the guest while it runs: its place is there, and free."""
    domain = observed.domain
    places = assign(observed.places, hardware)
    if any(seen.target == places.targets[disk.name] for seen in domain.disks):
        return False
    match disk.bus:
        case DiskBus.VIRTIO if "q35" in domain.machine_type:
            return places.ports[disk_key(disk.name)] in domain.free_ports
        case DiskBus.VIRTIO:
            return domain.machine_type.startswith("pc")
        case DiskBus.SCSI:
            return domain.has_scsi
    return False


def detachable(seen: AttachedDisk) -> bool:
    """Tell whether a guest can be asked to let go of a disk."""
    return seen.bus in {DiskBus.VIRTIO, DiskBus.SCSI}
