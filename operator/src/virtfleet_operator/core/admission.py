"""What the API server is told about a request: refuse it with a sentence, or let it pass with a hint.

Refusal is a courtesy: every rule here is checked again when the object is reconciled, because the webhook may have
been down. A request that leaves the spec alone passes even if the stored spec is bad, else nobody could delete it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from virtfleet_api.kinds import KINDS
from virtfleet_api.resource import Resource
from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_node import VMNode
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_operator.core.adoption import adoption_problems, find_adoptions
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.growth import growth_problems
from virtfleet_operator.core.image_origins import find_image_origin, image_origin_problems
from virtfleet_operator.core.network.addresses import address_clashes
from virtfleet_operator.core.network.cards import find_cards, network_reference_problems
from virtfleet_operator.core.network.plans import build_group
from virtfleet_operator.core.parse import parse, parse_metadata, parse_status
from virtfleet_operator.core.place import load_of
from virtfleet_operator.core.references import find_images, reference_problems
from virtfleet_operator.core.snapshot_disks import find_snapshot_disks, snapshot_disk_problems
from virtfleet_operator.core.sources import find_sources, source_problems
from virtfleet_operator.core.validate import (
    check,
    disk_deletion_problems,
    group_deletion_problems,
    image_deletion_problems,
    node_deletion_problems,
    overlap_problems,
    switch_deletion_problems,
)
from virtfleet_operator.core.validate.machine import binding_problems
from virtfleet_operator.core.validate.vm_restore import other_problems, target_problems
from virtfleet_operator.core.validate.vm_snapshot import (
    capture_problems,
    number_problems,
    snapshot_deletion_problems,
)
from virtfleet_operator.core.verdict import Invalid, Waiting, quote

_KINDS: Final[Mapping[str, type[Resource]]] = {kind.__name__: kind for kind in KINDS}

Body = Mapping[str, Any]
"""An object's JSON."""


@dataclass(frozen=True, slots=True)
class Review:
    """The answer: a refusal, or warnings that kubectl shows beside its success."""

    refusal: Invalid | None = None
    warnings: Sequence[str] = field(default=())


def review_write(body: Body, old_body: Body | None, catalog: Catalog, now: datetime) -> Review:
    """Review the creation of an object, or with `old_body` its change."""
    kind = _KINDS[str(body["kind"])]
    if old_body is not None and body.get("spec") == old_body.get("spec"):
        return Review(_refusal(_metadata_problems(kind, body, old_body)))
    new = parse(kind, body)
    if isinstance(new, Invalid):
        return Review(new)
    old = parse(kind, old_body) if old_body is not None else None
    refusal = check(new, now, None if isinstance(old, Invalid) else old)
    if refusal is None and isinstance(new, VirtualMachine) and isinstance(old, VirtualMachine):
        refusal = _refusal(_growth(old, new, catalog))
    if refusal or (isinstance(new, VMSnapshot | VMRestore) and old is not None):
        return Review(refusal)  # once they are there, they are what they are, whatever becomes of the machine
    return _review_lookups(new, catalog)


def review_deletion(body: Body, catalog: Catalog) -> Review:
    """Review the deletion of an object."""
    kind = _KINDS[str(body["kind"])]
    meta = parse_metadata(body)
    named = meta.namespace, meta.name
    problems: tuple[str, ...] = ()
    if kind is VMImage:
        problems = image_deletion_problems(meta, catalog.image_users(*named))
    elif kind is VMNode:
        problems = node_deletion_problems(meta, catalog.node_machines(meta.name))
    elif kind is VMDisk:
        problems = disk_deletion_problems(meta, parse_status(kind, body), catalog.disk_users(*named))
    elif kind is VirtualSwitch:
        problems = switch_deletion_problems(meta, catalog.switch_users(meta.name))
    elif kind is SecurityGroup:
        problems = group_deletion_problems(meta, catalog.group_users(*named))
    elif kind is VMSnapshot:
        problems = snapshot_deletion_problems(meta, catalog.snapshot_restores(*named))
    return Review(_refusal(problems))


def _metadata_problems(kind: type[Resource], body: Body, old_body: Body) -> tuple[str, ...]:
    if kind is not VirtualMachine:
        return ()
    return tuple(binding_problems(parse_metadata(body), parse_metadata(old_body)))


def _review_lookups(new: Resource, catalog: Catalog) -> Review:
    """Check an object against others; what is not there yet is a hint, as it may come later."""
    match new:
        case VirtualMachine():
            return _review_machine(new, catalog)
        case VMImage():
            wait = find_image_origin(new, catalog)
            warnings = (wait.message,) if isinstance(wait, Waiting) else ()
            return Review(_refusal(image_origin_problems(new, catalog)), warnings)
        case VirtualSwitch():
            others = (other for other in catalog.virtual_switches() if other.metadata.name != new.metadata.name)
            return Review(_refusal(overlap_problems(new, others)))
        case SecurityGroup():
            return Review(warnings=build_group(new, catalog)[1])
        case VMSnapshot():
            return _review_snapshot(new, catalog)
    return _review_restore(new, catalog) if isinstance(new, VMRestore) else Review()


def _sizing(vm: VirtualMachine, catalog: Catalog) -> Sizing | Waiting | Invalid:
    return resolve(vm, catalog.vm_class(vm.spec.class_name) if vm.spec.class_name else None)


def _growth(old: VirtualMachine, new: VirtualMachine, catalog: Catalog) -> tuple[str, ...]:
    """Return why the machine's node has no room for what it is to be, as far as that is known."""
    room = catalog.room(new)
    before, after = _sizing(old, catalog), _sizing(new, catalog)
    if room is None or not isinstance(before, Sizing) or not isinstance(after, Sizing):
        return ()
    return growth_problems(load_of(before, {}), load_of(after, {}), room)


def _review_machine(vm: VirtualMachine, catalog: Catalog) -> Review:
    """Check a machine against class, images and sources; what is not there yet is a hint, as it may come later."""
    sizing = _sizing(vm, catalog)
    sizes = sizing.problems if isinstance(sizing, Invalid) else ()
    problems = (
        *sizes,
        *reference_problems(vm, catalog),
        *source_problems(vm, catalog),
        *snapshot_disk_problems(vm, catalog),
        *adoption_problems(vm, catalog),
        *network_reference_problems(vm, catalog),
        *address_clashes(vm, catalog),
    )
    waits = (
        sizing,
        find_images(vm, catalog),
        find_sources(vm, catalog),
        find_snapshot_disks(vm, catalog),
        find_adoptions(vm, catalog),
        find_cards(vm, catalog),
    )
    return Review(_refusal(problems), tuple(wait.message for wait in waits if isinstance(wait, Waiting)))


def _review_snapshot(snapshot: VMSnapshot, catalog: Catalog) -> Review:
    """Check a new snapshot against its machine, which may come later."""
    namespace, name = snapshot.metadata.namespace, snapshot.spec.virtual_machine
    vm = catalog.machine(namespace, name)
    if vm is None:
        said = f"spec.virtualMachine: there is no VirtualMachine {quote(name)} yet: it is captured once it is there"
        return Review(warnings=(said,))
    if vm.metadata.deletion_timestamp is not None:
        said = f"spec.virtualMachine: VirtualMachine {quote(name)} is being deleted: write the name of one that stays"
        return Review(Invalid((said,)))
    others = catalog.machine_snapshots(namespace, name)
    return Review(_refusal((*capture_problems(snapshot.spec, vm), *number_problems(others, name))))


def _review_restore(restore: VMRestore, catalog: Catalog) -> Review:
    """Check a new restore against its snapshot, which may come later, and its machines."""
    snapshot = catalog.snapshot(restore.metadata.namespace, restore.spec.snapshot)
    others = other_problems(restore, catalog)
    if snapshot is None:
        name = quote(restore.spec.snapshot)
        said = f"spec.snapshot: there is no VMSnapshot {name} yet: it is restored once it is there"
        return Review(_refusal(others), (said,))
    return Review(_refusal((*target_problems(restore, snapshot, catalog), *others)))


def _refusal(problems: Sequence[str]) -> Invalid | None:
    return Invalid(tuple(problems)) if problems else None
