"""The status of a VMDisk: whether a machine can take it over."""

from dataclasses import dataclass
from datetime import datetime

from virtfleet_api.conditions import ConditionType
from virtfleet_api.quantity import Bytes
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_disk import DiskUser, VMDiskPhase, VMDiskStatus
from virtfleet_operator.core.summarise.bounds import size_of
from virtfleet_operator.core.summarise.conditions import NO, YES, Saying, Says, conditions


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What a VMDisk's status is made from."""

    phase: VMDiskPhase
    says: Saying
    """Of the condition Ready."""
    user: DiskUser | None = None
    capacity: Bytes | None = None
    allocated: Bytes | None = None


def summarise_disk(meta: ObjectMeta, facts: DiskFacts, old: VMDiskStatus, now: datetime) -> VMDiskStatus:
    """Return the status of a VMDisk; what its node has told of it once stays."""
    ready = Says(ConditionType.READY, *facts.says, meta.generation)
    return VMDiskStatus(
        observed_generation=meta.generation,
        phase=facts.phase,
        capacity=facts.capacity or old.capacity,
        allocated=facts.allocated or old.allocated,
        user=facts.user,
        conditions=conditions(old.conditions, now, [ready]),
    )


def available(capacity_bytes: int | None = None, allocated_bytes: int | None = None) -> DiskFacts:
    """Return the facts of a disk that waits for a machine."""
    said = (YES, "Available", "A machine can take the disk over: name this VMDisk in its spec.disks[].source.vmDisk.")
    return DiskFacts(VMDiskPhase.AVAILABLE, said, None, size_of(capacity_bytes), size_of(allocated_bytes))


def in_use(user: DiskUser, message: str = "") -> DiskFacts:
    """Return the facts of a disk that a machine takes over."""
    said = message or f"VirtualMachine {user.name} takes the disk over; this object goes once it has it."
    return DiskFacts(VMDiskPhase.IN_USE, (NO, "InUse", said), user)
