"""Rules about a VMDisk.

Its name holds a digest of where the disk is, so that a spec that was changed behind the webhook's back is known for
what it is: else a VMDisk could be turned to the disk of another namespace.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_disk import VMDisk, VMDiskPhase, VMDiskSpec, VMDiskStatus

_DIGITS: Final = 16  # of SHA-256 in hexadecimal: 64 bits, too many to be searched for a second disk


def disk_object_name(spec: VMDiskSpec) -> str:
    """Return the name of the VMDisk of a disk: always the same, so that making it twice makes one."""
    former = spec.former_machine
    parts = (spec.node_name, spec.pool, former.uid, former.name, spec.disk)
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()[:_DIGITS]
    return f"{former.name}-{spec.disk}-{digest}"


def disk_object_problems(disk: VMDisk, old: VMDisk | None = None) -> tuple[str, ...]:
    """Check a VMDisk, and what changed of it."""
    if old is not None and disk.spec != old.spec:
        return (
            "spec: cannot change: write what it was, and name the VMDisk in spec.disks of a VirtualMachine instead",
        )
    if disk.status.phase is not VMDiskPhase.PENDING and disk.metadata.name != disk_object_name(disk.spec):
        return ("spec: was changed after the disk was kept, so nobody knows which disk is meant: write what it was",)
    return ()


def disk_deletion_problems(meta: ObjectMeta, status: VMDiskStatus, users: Sequence[str]) -> tuple[str, ...]:
    """Refuse to delete a disk that a machine is about to take over; `users` are "namespace/name"."""
    if status.user is not None:
        users = [user for user in users if user == f"{meta.namespace}/{status.user.name}"]
    if not users:
        return ()
    more = f" and {len(users) - 1} more" if len(users) > 1 else ""
    return (f"VMDisk {meta.name} is named by VirtualMachine {users[0]}{more}: delete that, or take the disk out of it",)
