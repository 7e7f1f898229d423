"""The disks of machines that disks of other machines are copied from, found and checked.

Only what is still to be copied is looked for: once a disk exists, its source may change and go. A disk is copied by
its node, so a machine goes where its sources are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from virtfleet_api.names import NODE_LABEL
from virtfleet_api.virtual_machine import Disk, DiskBus, DiskReference, VirtualMachine
from virtfleet_api.virtual_machine_status import DiskStatus
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.verdict import Invalid, Waiting, quote


@dataclass(frozen=True, slots=True)
class Source:
    """A disk that is there to be copied."""

    machine_uid: str
    pool: str
    node_name: str


Sources = Mapping[str, Source]
"""By the name of the disk that becomes the copy."""


def pending_sources(vm: VirtualMachine) -> Iterator[tuple[int, Disk, DiskReference]]:
    """Return the disks that are still to be copied, with their places in the spec and what they are copied from."""
    there = {disk.name for disk in vm.status.disks}
    for index, disk in enumerate(vm.spec.disks):
        if disk.source.disk is not None and disk.name not in there:
            yield index, disk, disk.source.disk


def find_sources(vm: VirtualMachine, catalog: Catalog) -> Sources | Waiting | Invalid:
    """Return what a machine's disks are to be copied from, or what is wrong with it."""
    found: dict[str, Source] = {}
    for index, disk, reference in pending_sources(vm):
        where = f"spec.disks[{index}].source.disk"
        machine = catalog.machine(vm.metadata.namespace, reference.virtual_machine)
        if machine is None or machine.metadata.deletion_timestamp is not None:
            return Waiting("SourceNotFound", f"{where}: {say_no_machine(reference, machine)}")
        if problems := tuple(_problems(where, disk, reference, machine)):
            return Invalid(problems)
        stored, node = stored_disk(machine, reference), node_of(machine)
        if stored is None or node is None:
            return say_not_made(where, reference)
        found[disk.name] = Source(machine.metadata.uid, stored.pool, node)
    problems = tuple(_node_problems(vm, found))
    return Invalid(problems) if problems else found


def source_problems(vm: VirtualMachine, catalog: Catalog) -> tuple[str, ...]:
    """Check what a machine says of sources that are there already; for admission, where nothing is waited for."""
    found = (
        (f"spec.disks[{index}].source.disk", disk, reference, machine)
        for index, disk, reference in pending_sources(vm)
        if (machine := catalog.machine(vm.metadata.namespace, reference.virtual_machine)) is not None
    )
    return tuple(problem for given in found for problem in _problems(*given))


def source_node(sources: Sources) -> str | None:
    """Return the node that sources are on, which is the same for all."""
    return next((source.node_name for source in sources.values()), None)


def say_no_machine(reference: DiskReference, machine: VirtualMachine | None) -> str:
    """Say why there is no machine to copy from."""
    name = quote(reference.virtual_machine)
    if machine is not None:
        return f"the VirtualMachine {name} is being deleted: name another"
    return f"there is no VirtualMachine {name} in this namespace: create it or name another"


def say_not_made(where: str, reference: DiskReference) -> Waiting:
    """Say that a disk is still to be made."""
    said = f"the disk {quote(reference.name)} of VirtualMachine {quote(reference.virtual_machine)}"
    return Waiting("SourceNotReady", f"{where}: {said} has not been made yet: it is copied once it is there")


def name_problem(where: str, reference: DiskReference, machine: VirtualMachine) -> str:
    """Return what is wrong with the name of a disk, or nothing; what is in a drive is no disk."""
    disks = [disk for disk in machine.spec.disks if disk.bus is not DiskBus.CDROM]
    names = [disk.name for disk in disks if disk.source.pvc is None]
    if reference.name in names:
        return ""
    claim = next((disk.source.pvc for disk in disks if disk.name == reference.name), None)
    if claim is not None:
        said = f"is PersistentVolumeClaim {quote(claim.claim_name)}, which is not copied"
        return f"{where}.name: {quote(reference.name)} {said}: make a claim with dataSource, or name another disk"
    has = f"write one of {', '.join(names[:8])}" if names else "it has none"
    name = quote(reference.virtual_machine)
    return f"{where}.name: VirtualMachine {name} has no disk {quote(reference.name)}: {has}"


def _problems(where: str, disk: Disk, reference: DiskReference, machine: VirtualMachine) -> Iterator[str]:
    if problem := name_problem(where, reference, machine):
        yield problem
    stored = stored_disk(machine, reference)
    if disk.size is not None and stored is not None and disk.size < stored.capacity:
        size = where.removesuffix(".source.disk") + ".size"
        remedy = f'write "{stored.capacity}" or leave it out'
        yield f"{size}: '{disk.size}' is smaller than the disk it is copied from: {remedy}"


def _node_problems(vm: VirtualMachine, found: Sources) -> Iterator[str]:
    """Refuse sources on several nodes: copies do not leave their node."""
    own = node_of(vm)
    nodes = {source.node_name for source in found.values()} | ({own} if own else set())
    if found and len(nodes) > 1:
        first = next(index for index, disk, _ in pending_sources(vm) if found[disk.name].node_name != own)
        yield (
            f"spec.disks[{first}].source.disk: the disks would be on nodes {' and '.join(sorted(nodes))}, "
            "and copies do not leave their node: name disks of machines of one node"
        )


def stored_disk(machine: VirtualMachine, reference: DiskReference) -> DiskStatus | None:
    """Return a disk that the machine has."""
    return next((disk for disk in machine.status.disks if disk.name == reference.name), None)


def node_of(machine: VirtualMachine) -> str | None:
    """Return the node that a machine is bound to, as far as its object says."""
    return machine.status.node_name or machine.metadata.labels.get(NODE_LABEL)
