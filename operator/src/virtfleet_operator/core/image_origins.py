"""The disks of machines and snapshots that images are copied from, found and checked.

Only what is still to be copied is looked for: once an image exists, what it is a copy of may change and go. It is made
once, and never anew, by the node that has the disk.
"""

from collections.abc import Collection
from typing import Final

from virtfleet_api.virtual_machine import DiskReference, SnapshotDiskReference
from virtfleet_api.vm_image import ImagePhase, ImageSource, VMImage
from virtfleet_api.vm_snapshot import SnapshotPhase
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.snapshot_disks import SnapshotDisk, disk_problem, say_unusable
from virtfleet_operator.core.sources import Source, name_problem, node_of, say_no_machine, say_not_made, stored_disk
from virtfleet_operator.core.verdict import Waiting, quote

_DISK: Final = "spec.source.disk"
_SNAPSHOT: Final = "spec.source.snapshot"

Origin = Source | SnapshotDisk


def is_copied(source: ImageSource) -> bool:
    """Tell whether an image is made once, from what the fleet itself holds."""
    return source.disk is not None or source.snapshot is not None


def is_made(image: VMImage) -> bool:
    """Tell whether there is a copy, or was one."""
    return image.status.checksum is not None or _has_copy(image)


def find_image_origin(image: VMImage, catalog: Catalog, told: Collection[str] = ()) -> Origin | Waiting | None:
    """Return what an image is still to be copied from; None when it is copied from no disk, or no more.

    `told` are the nodes that have been asked for the image: a copy that they may have begun is ended by nothing but
    the end of its machine, or of its snapshot.
    """
    source = image.spec.source
    if not is_copied(source) or _has_copy(image):
        return None
    if image.status.checksum is not None:
        where = _DISK if source.disk else _SNAPSHOT
        lost = "its copies are lost, and what may have changed is not copied again: make another VMImage"
        return Waiting("CopiesLost", f"{where}: {lost}")
    if source.disk is not None:
        return _find_disk(image.metadata.namespace, source.disk, catalog, told)
    return _find_captured(image.metadata.namespace, source.snapshot, catalog, told) if source.snapshot else None


def image_origin_problems(image: VMImage, catalog: Catalog) -> tuple[str, ...]:
    """Check what an image says of an origin that is there already; for admission."""
    source, namespace = image.spec.source, image.metadata.namespace
    problem = ""
    if image.status.checksum is not None:
        return ()
    if source.disk and (machine := catalog.machine(namespace, source.disk.virtual_machine)):
        problem = name_problem(_DISK, source.disk, machine)
    if source.snapshot and (snapshot := catalog.snapshot(namespace, source.snapshot.name)):
        ready = snapshot.status.phase is SnapshotPhase.READY  # what is in it is not known before
        problem = disk_problem(f"{_SNAPSHOT}.disk", source.snapshot, snapshot) if ready else ""
    return (problem,) if problem else ()


def _has_copy(image: VMImage) -> bool:
    return any(node.phase is ImagePhase.READY for node in image.status.nodes)


def _find_disk(namespace: str, reference: DiskReference, catalog: Catalog, told: Collection[str]) -> Source | Waiting:
    machine = catalog.machine(namespace, reference.virtual_machine)
    if machine is None or (machine.metadata.deletion_timestamp is not None and node_of(machine) not in told):
        return Waiting("SourceNotFound", f"{_DISK}: {say_no_machine(reference, machine)}")
    if problem := name_problem(_DISK, reference, machine):
        return Waiting("SourceNotFound", problem)
    stored, node = stored_disk(machine, reference), node_of(machine)
    if stored is None or node is None:
        return say_not_made(_DISK, reference)
    return Source(machine.metadata.uid, stored.pool, node)


def _find_captured(
    namespace: str, reference: SnapshotDiskReference, catalog: Catalog, told: Collection[str]
) -> SnapshotDisk | Waiting:
    snapshot, name = catalog.snapshot(namespace, reference.name), quote(reference.name)
    said = say_unusable(snapshot)
    if snapshot is None or (said and snapshot.status.node_name not in told):
        return Waiting("SnapshotNotFound", f"{_SNAPSHOT}: VMSnapshot {name} {said}")
    node = snapshot.status.node_name
    if node is None or snapshot.status.creation_time is None:
        return Waiting("SnapshotNotReady", f"{_SNAPSHOT}: VMSnapshot {name} is not Ready yet: it is copied once it is")
    if problem := disk_problem(f"{_SNAPSHOT}.disk", reference, snapshot):
        return Waiting("SnapshotNotFound", problem)
    return SnapshotDisk(snapshot.metadata.uid, reference.disk, node)
