"""Disks in layers as snapshots leave them, with a pattern of one byte for each MiB, and what is read of them."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from virtfleet_api.machine import Hardware
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot
from virtfleet_node.core.places import Places
from virtfleet_node.storage.disks import DiskStore

MIB = 1 << 20


def write(path: Path, pattern: int, at: int = 0, mebibytes: int = 1) -> None:
    """Write a pattern into a file that nobody has open."""
    command = f"write -P {pattern} {at}M {mebibytes}M"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, str(path)], check=True, capture_output=True)


def read(path: Path) -> bytes:
    """Return all that is read through a file that nobody writes, which must be in order."""
    subprocess.run(["qemu-img", "check", "-q", "-U", path], check=True)
    raw = path.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, raw], check=True)
    found = raw.read_bytes()
    raw.unlink()
    return found


async def capture(disks: DiskStore, machine: str, snapshot: str) -> Path:
    """Keep a snapshot of a machine's one disk as it is now, and return its layer."""
    (disk,) = disks.read_disks(machine)
    document = MachineSnapshot(uid=snapshot, namespace="default", name="then", machine_uid=machine)
    disks.snapshots.begin(disk.pool, KeptSnapshot(document=document))
    await disks.layers.make(disks.layers.next_path(machine, disk.pool, disk.name), disk.path)
    layer = CapturedDisk(name=disk.name, pool=disk.pool, file=disk.path.name, capacity_bytes=disk.capacity_bytes)
    captured = Captured(
        created_at=datetime.now(UTC), hardware=Hardware(memory_bytes=MIB), places=Places(), disks=(layer,)
    )
    disks.snapshots.write(KeptSnapshot(document=document, captured=captured))
    return disk.path


async def go_back(disks: DiskStore, machine: str, snapshot: str) -> Path:
    """Have the machine's one disk be an empty layer above a snapshot's, and return it."""
    kept = disks.snapshots.get(snapshot)
    assert kept is not None
    assert kept.captured is not None
    (disk,) = kept.captured.disks
    path = disks.layers.next_path(machine, disk.pool, disk.name)
    await disks.layers.make(path, named(disks, snapshot))
    return path


def named(disks: DiskStore, snapshot: str) -> Path:
    """Return the file that a snapshot names."""
    kept = disks.snapshots.get(snapshot)
    assert kept is not None
    assert kept.captured is not None
    return disks.snapshots.layer(kept.document.machine_uid, kept.captured.disks[0])


def files(disks: DiskStore, machine: str) -> list[str]:
    """Return the names of all files in the folder of a machine in the default pool."""
    folder = disks._pools.folder("default", "disks") / machine
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
