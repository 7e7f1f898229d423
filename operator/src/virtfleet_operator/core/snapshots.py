"""The MachineSnapshot document of a VMSnapshot."""

from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_api.vm_snapshot import VMSnapshot


def compile_snapshot(snapshot: VMSnapshot, machine_uid: str) -> MachineSnapshot:
    """Return what the machine's node is told, to capture it."""
    spec = snapshot.spec
    return MachineSnapshot(
        uid=snapshot.metadata.uid,
        namespace=snapshot.metadata.namespace,
        name=snapshot.metadata.name,
        machine_uid=machine_uid,
        mode=spec.mode,
        quiesce=spec.quiesce,
        exclude_disks=spec.exclude_disks,
    )


def compile_removal(namespace: str, name: str, uid: str, machine_uid: str) -> MachineSnapshot:
    """Return what a node is told, to remove what it holds of a snapshot."""
    return MachineSnapshot(uid=uid, namespace=namespace, name=name, machine_uid=machine_uid, present=False)
