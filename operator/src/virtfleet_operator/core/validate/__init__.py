"""What the schema cannot say, as sentences: field, what is wrong, what to write instead.

Admission and reconciliation call the same functions, so that a user reads the same sentence whether the webhook
refused the object or the operator found it stored.
"""

from datetime import datetime
from functools import singledispatch

from virtfleet_api.resource import Resource
from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_api.vm_address import VMAddress
from virtfleet_api.vm_class import VMClass
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_node import VMNode
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_api.vm_snapshot_schedule import VMSnapshotSchedule
from virtfleet_operator.core.validate.address import address_problems
from virtfleet_operator.core.validate.disk_object import disk_deletion_problems, disk_object_problems
from virtfleet_operator.core.validate.image import image_deletion_problems, image_problems
from virtfleet_operator.core.validate.machine import machine_problems
from virtfleet_operator.core.validate.node import node_deletion_problems, node_problems
from virtfleet_operator.core.validate.security_group import group_deletion_problems, group_problems
from virtfleet_operator.core.validate.sizes import class_problems
from virtfleet_operator.core.validate.virtual_switch import overlap_problems, switch_deletion_problems, switch_problems
from virtfleet_operator.core.validate.vm_restore import restore_problems
from virtfleet_operator.core.validate.vm_snapshot import snapshot_problems
from virtfleet_operator.core.validate.vm_snapshot_schedule import schedule_problems
from virtfleet_operator.core.verdict import Invalid

__all__ = [
    "check",
    "class_problems",
    "disk_deletion_problems",
    "disk_object_problems",
    "group_deletion_problems",
    "group_problems",
    "image_deletion_problems",
    "image_problems",
    "machine_problems",
    "node_deletion_problems",
    "node_problems",
    "overlap_problems",
    "restore_problems",
    "schedule_problems",
    "snapshot_problems",
    "switch_deletion_problems",
    "switch_problems",
]


def check(resource: Resource, now: datetime, old: Resource | None = None) -> Invalid | None:
    """Validate an object of any kind; `old` is what it replaces, where that is known."""
    problems = _problems(resource, now, old)
    return Invalid(problems) if problems else None


@singledispatch
def _problems(resource: Resource, _now: datetime, _old: Resource | None) -> tuple[str, ...]:
    raise TypeError(f"no rules for {type(resource).__name__}")


@_problems.register
def _(resource: VirtualMachine, now: datetime, old: Resource | None) -> tuple[str, ...]:
    return machine_problems(resource, now, old if isinstance(old, VirtualMachine) else None)


@_problems.register
def _(resource: VMImage, _now: datetime, old: Resource | None) -> tuple[str, ...]:
    return image_problems(resource, old if isinstance(old, VMImage) else None)


@_problems.register
def _(resource: VMNode, _now: datetime, _old: Resource | None) -> tuple[str, ...]:
    return node_problems(resource)


@_problems.register
def _(resource: VMClass, _now: datetime, _old: Resource | None) -> tuple[str, ...]:
    return class_problems(resource)


@_problems.register
def _(resource: VMDisk, _now: datetime, old: Resource | None) -> tuple[str, ...]:
    return disk_object_problems(resource, old if isinstance(old, VMDisk) else None)


@_problems.register
def _(resource: VirtualSwitch, _now: datetime, old: Resource | None) -> tuple[str, ...]:
    return switch_problems(resource, old if isinstance(old, VirtualSwitch) else None)


@_problems.register
def _(resource: SecurityGroup, _now: datetime, _old: Resource | None) -> tuple[str, ...]:
    return group_problems(resource)


@_problems.register
def _(resource: VMAddress, _now: datetime, old: Resource | None) -> tuple[str, ...]:
    return address_problems(resource, old if isinstance(old, VMAddress) else None)


@_problems.register
def _(resource: VMSnapshot, _now: datetime, old: Resource | None) -> tuple[str, ...]:
    return snapshot_problems(resource, old if isinstance(old, VMSnapshot) else None)


@_problems.register
def _(resource: VMRestore, _now: datetime, old: Resource | None) -> tuple[str, ...]:
    return restore_problems(resource, old if isinstance(old, VMRestore) else None)


@_problems.register
def _(resource: VMSnapshotSchedule, _now: datetime, _old: Resource | None) -> tuple[str, ...]:
    return schedule_problems(resource)
