"""From names to host paths: which files a machine's domain is built from."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import Machine, MachineDisk, VolumeSource
from virtfleet_node.core.desired.guest import FileLayer, ResolvedDisk, ResolvedPaths
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.stored import ImageFiles, StoredDisk
from virtfleet_node.core.volumes import SeenVolume, is_block, say_missing

FindImage = Callable[[str], ImageFiles | None]
LookAtVolume = Callable[[VolumeSource], SeenVolume]


def resolve_paths(
    machine: Machine,
    disks: Iterable[StoredDisk],
    volumes: Mapping[str, ResolvedDisk],
    find_image: FindImage,
    medium: Path | None,
    console_log: Path,
) -> ResolvedPaths:
    """Return every path of the machine's domain; ConflictError when an image has gone meanwhile."""
    kernel = _image(find_image, machine.hardware.kernel.image_uid) if machine.hardware.kernel else None
    by_name = {(disk.pool, disk.name): disk for disk in disks}
    wanted = ((disk.name, by_name[disk.pool, disk.name]) for disk in machine.hardware.own_disks)
    return ResolvedPaths(
        console_log=console_log,
        disks={**{name: resolve_disk(stored, find_image) for name, stored in wanted}, **volumes},
        media=resolve_media(machine.hardware.drives, find_image),
        kernel=kernel.path if kernel else None,
        initrd=kernel.initrd if kernel else None,
        cloud_init=medium,
    )


def resolve_media(drives: Iterable[MachineDisk], find_image: FindImage) -> dict[str, Path]:
    """Return what is in each drive that is not empty; ConflictError when an image has gone meanwhile."""
    return {drive.name: _image(find_image, drive.medium_uid).path for drive in drives if drive.medium_uid is not None}


def resolve_media_there(drives: Iterable[MachineDisk], find_image: FindImage) -> dict[str, Path]:
    """Return what is in each drive that is not empty, as far as the node still has it."""
    found = {drive.name: find_image(drive.medium_uid) for drive in drives if drive.medium_uid is not None}
    return {name: image.path for name, image in found.items() if image is not None}


def resolve_disk(stored: StoredDisk, find_image: FindImage) -> ResolvedDisk:
    """Return the files of a disk; ConflictError when an image has gone meanwhile."""
    own = FileLayer(stored.path, stored.format)
    layers = tuple(FileLayer(path, ImageFormat.QCOW2) for path in stored.layers)
    if stored.backing_image_uid is None:
        return ResolvedDisk(own, layers)
    base = _image(find_image, stored.backing_image_uid)
    return ResolvedDisk(own, (*layers, FileLayer(base.path, base.format)))


def resolve_volumes(volumes: Iterable[MachineDisk], look: LookAtVolume) -> dict[str, ResolvedDisk]:
    """Return the device or file of each volume; ConflictError when one has gone meanwhile. Blocks."""
    found = {}
    for disk in volumes:
        if not isinstance(disk.source, VolumeSource):
            continue
        seen = look(disk.source)
        if seen.path is None or seen.problem or not seen.is_made:
            raise ConflictError(say_missing(disk.source, seen))
        found[disk.name] = ResolvedDisk(FileLayer(seen.path, ImageFormat.RAW), is_device=is_block(disk.source))
    return found


def _image(find_image: FindImage, uid: str) -> ImageFiles:
    found = find_image(uid)
    if found is None:
        raise ConflictError(f"Image {uid} is not ready on this node.")
    return found
