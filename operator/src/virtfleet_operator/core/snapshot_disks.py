"""The disks of snapshots that a machine's disks begin as, found and checked.

Only what is still to be made is looked for: once the machine shows the disk, its snapshot may go. A disk is a layer
above the snapshot's, so a machine goes to the snapshot's node, and the disk into the snapshot's pool.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from virtfleet_api.virtual_machine import Disk, SnapshotDiskReference, VirtualMachine
from virtfleet_api.vm_snapshot import SnapshotDiskStatus, SnapshotPhase, VMSnapshot
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.sources import node_of
from virtfleet_operator.core.verdict import Invalid, Waiting, quote


@dataclass(frozen=True, slots=True)
class SnapshotDisk:
    """A disk of a snapshot that is there to begin from."""

    snapshot_uid: str
    name: str
    node_name: str


SnapshotDisks = Mapping[str, SnapshotDisk]
"""By the name of the disk that begins so."""


def pending_snapshot_disks(vm: VirtualMachine) -> Iterator[tuple[int, Disk, SnapshotDiskReference]]:
    """Return the disks that are still to be made, with their places in the spec and what they begin as."""
    there = {disk.name for disk in vm.status.disks}
    for index, disk in enumerate(vm.spec.disks):
        if disk.source.snapshot is not None and disk.name not in there:
            yield index, disk, disk.source.snapshot


def find_snapshot_disks(
    vm: VirtualMachine, catalog: Catalog, copied_on: str | None = None
) -> SnapshotDisks | Waiting | Invalid:
    """Return what a machine's disks begin as, or what is wrong; `copied_on` is the node of the disks it copies."""
    found: dict[str, SnapshotDisk] = {}
    for index, disk, reference in pending_snapshot_disks(vm):
        where = f"spec.disks[{index}]"
        snapshot = catalog.snapshot(vm.metadata.namespace, reference.name)
        said = say_unusable(snapshot)
        if snapshot is None or said:
            return Waiting("SnapshotNotFound", f"{where}.source.snapshot: VMSnapshot {quote(reference.name)} {said}")
        if problems := tuple(_problems(where, disk, reference, snapshot)):
            return Invalid(problems)
        node = snapshot.status.node_name
        if not snapshot.status.ready_to_use or node is None:
            said = f"VMSnapshot {quote(reference.name)} is not Ready yet: the disk is made once it is"
            return Waiting("SnapshotNotReady", f"{where}.source.snapshot: {said}")
        found[disk.name] = SnapshotDisk(snapshot.metadata.uid, reference.disk, node)
    problems = tuple(_node_problems(vm, found, copied_on))
    return Invalid(problems) if problems else found


def snapshot_disk_problems(vm: VirtualMachine, catalog: Catalog) -> tuple[str, ...]:
    """Check what a machine says of snapshots that are there; for admission, where nothing is waited for."""
    found = (
        (f"spec.disks[{index}]", disk, reference, snapshot)
        for index, disk, reference in pending_snapshot_disks(vm)
        if (snapshot := catalog.snapshot(vm.metadata.namespace, reference.name)) is not None
    )
    return tuple(problem for given in found for problem in _problems(*given))


def snapshot_disk_node(found: SnapshotDisks) -> str | None:
    """Return the node that the snapshots are on, which is the same for all."""
    return next((disk.node_name for disk in found.values()), None)


def captured_disk(snapshot: VMSnapshot, name: str) -> SnapshotDiskStatus | None:
    """Return a disk of a snapshot, or None."""
    return next((disk for disk in snapshot.status.disks if disk.name == name), None)


def disk_problem(where: str, reference: SnapshotDiskReference, snapshot: VMSnapshot) -> str:
    """Return what is wrong with the name of a disk of a snapshot that is ready, or nothing."""
    names = [found.name for found in snapshot.status.disks]
    if reference.disk in names:
        return ""
    has = f"write one of {', '.join(names[:8])}" if names else "it has none"
    return f"{where}: VMSnapshot {quote(reference.name)} has no disk {quote(reference.disk)}: {has}"


def say_unusable(snapshot: VMSnapshot | None) -> str:
    """Say why nothing will ever begin from a snapshot, or nothing."""
    if snapshot is None:
        return "is not there: create it or name one that `kubectl get vmsnapshot` shows in this namespace"
    if snapshot.metadata.deletion_timestamp is not None:
        return "is being deleted: name another"
    if snapshot.status.phase is SnapshotPhase.FAILED:
        return "failed, and holds nothing: name another"
    return ""


def _problems(where: str, disk: Disk, reference: SnapshotDiskReference, snapshot: VMSnapshot) -> Iterator[str]:
    if snapshot.status.phase is not SnapshotPhase.READY:
        return  # what is in it is not known yet
    captured, name = captured_disk(snapshot, reference.disk), quote(reference.name)
    if captured is None:
        yield disk_problem(f"{where}.source.snapshot.disk", reference, snapshot)
        return
    if disk.pool != captured.pool:
        yield (
            f"{where}.pool: is {quote(disk.pool)}, and the disk of VMSnapshot {name} is in pool "
            f'{quote(captured.pool)}: write "{captured.pool}"'
        )
    if disk.size is not None and disk.size < captured.capacity:
        yield (
            f"{where}.size: '{disk.size}' is smaller than the disk of VMSnapshot {name}: "
            f'write "{captured.capacity}" or leave it out'
        )


def _node_problems(vm: VirtualMachine, found: SnapshotDisks, copied_on: str | None) -> Iterator[str]:
    """Refuse snapshots on several nodes: what was captured does not leave its node."""
    own = node_of(vm) or copied_on
    nodes = {disk.node_name for disk in found.values()} | ({own} if own else set())
    if found and len(nodes) > 1:
        first = next(index for index, disk, _ in pending_snapshot_disks(vm) if found[disk.name].node_name != own)
        yield (
            f"spec.disks[{first}].source.snapshot: the disks would be on nodes {' and '.join(sorted(nodes))}, "
            "and snapshots do not leave their node: name snapshots of one node"
        )
