"""The kept disks (VMDisk) that a machine takes over, found and checked.

Only what is still to be taken over is looked for: once the machine shows the disk, its VMDisk goes. Disks do not leave
their node, so a machine goes where they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from virtfleet_api.virtual_machine import Disk, VirtualMachine, VMDiskReference
from virtfleet_api.vm_disk import VMDisk, VMDiskPhase
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.sources import node_of
from virtfleet_operator.core.validate.disk_object import disk_object_problems
from virtfleet_operator.core.verdict import Invalid, Waiting, quote


@dataclass(frozen=True, slots=True)
class Adoption:
    """A disk that is there to be taken over."""

    machine_uid: str
    name: str
    node_name: str


Adoptions = Mapping[str, Adoption]
"""By the name that the disk gets in its new machine."""


def pending_adoptions(vm: VirtualMachine) -> Iterator[tuple[int, Disk, VMDiskReference]]:
    """Return the disks that are still to be taken over, with their places in the spec and the VMDisks they name."""
    there = {disk.name for disk in vm.status.disks}
    for index, disk in enumerate(vm.spec.disks):
        if disk.source.vm_disk is not None and disk.name not in there:
            yield index, disk, disk.source.vm_disk


def find_adoptions(vm: VirtualMachine, catalog: Catalog, copied_on: str | None = None) -> Adoptions | Waiting | Invalid:
    """Return what a machine takes over, or what is wrong with it; `copied_on` is the node of the disks it copies."""
    found: dict[str, Adoption] = {}
    for index, disk, reference in pending_adoptions(vm):
        kept = catalog.vm_disk(vm.metadata.namespace, reference.name)
        where = f"spec.disks[{index}]"
        if (reason := _unusable(vm, kept)) is not None:
            return Waiting("VMDiskNotAvailable", f"{where}.source.vmDisk: {_named(reference)} {reason}")
        if kept is None:
            continue
        if problems := tuple(_problems(where, disk, kept)):
            return Invalid(problems)
        found[disk.name] = Adoption(kept.spec.former_machine.uid, kept.spec.disk, kept.spec.node_name)
    problems = tuple(_node_problems(vm, found, copied_on))
    return Invalid(problems) if problems else found


def adoption_problems(vm: VirtualMachine, catalog: Catalog) -> tuple[str, ...]:
    """Check what a machine says of VMDisks that are there; for admission, where nothing is waited for."""
    found = (
        (f"spec.disks[{index}]", disk, kept)
        for index, disk, reference in pending_adoptions(vm)
        if (kept := catalog.vm_disk(vm.metadata.namespace, reference.name)) is not None
    )
    return tuple(problem for given in found for problem in _problems(*given))


def adoption_node(adoptions: Adoptions) -> str | None:
    """Return the node that the disks are on, which is the same for all."""
    return next((adoption.node_name for adoption in adoptions.values()), None)


def _named(reference: VMDiskReference) -> str:
    return f"the VMDisk {quote(reference.name)}"


def _unusable(vm: VirtualMachine, kept: VMDisk | None) -> str | None:
    """Say why a disk cannot be taken over by this machine now; None when it can."""
    if kept is None:
        return "is not there: name one that `kubectl get vmdisk` shows in this namespace"
    user = kept.status.user
    if user is not None and user.uid != vm.metadata.uid:
        return f"is taken over by VirtualMachine {quote(user.name)}: name another, or delete that machine"
    if kept.metadata.deletion_timestamp is not None:
        return "is being deleted: name another"
    if kept.status.phase is VMDiskPhase.PENDING or disk_object_problems(kept):
        return "cannot be used: see its condition Ready, or name another"
    if kept.status.phase is VMDiskPhase.LOST:
        return f"is on node {kept.spec.node_name}, which left the fleet: bring the node back, or name another"
    return None


def _problems(where: str, disk: Disk, kept: VMDisk) -> Iterator[str]:
    name = quote(kept.metadata.name)
    if disk.pool != kept.spec.pool:
        yield (
            f"{where}.pool: is {quote(disk.pool)}, and the VMDisk {name} is in pool {quote(kept.spec.pool)}: "
            f'write "{kept.spec.pool}"'
        )
    capacity = kept.status.capacity
    if disk.size is not None and capacity is not None and disk.size < capacity:
        yield f"{where}.size: '{disk.size}' is smaller than the VMDisk {name}: write \"{capacity}\" or leave it out"


def _node_problems(vm: VirtualMachine, found: Adoptions, copied_on: str | None) -> Iterator[str]:
    """Refuse disks on several nodes: they do not leave theirs."""
    own = node_of(vm) or copied_on
    nodes = {adoption.node_name for adoption in found.values()} | ({own} if own else set())
    if found and len(nodes) > 1:
        first = next(index for index, disk, _ in pending_adoptions(vm) if found[disk.name].node_name != own)
        yield (
            f"spec.disks[{first}].source.vmDisk: the disks would be on nodes {' and '.join(sorted(nodes))}, "
            "and disks do not leave their node: name disks of one node"
        )
