"""Disks in layers, in a real pool with real qcow2 files: what snapshots and other disks need stays."""

import asyncio
import json
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from virtfleet_api.machine import BlankSource, Hardware, MachineDisk, RetainedSource
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot
from virtfleet_node.core.errors import InvalidError
from virtfleet_node.core.places import Places
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.pools import Pools

MACHINE, OTHER, SNAPSHOT = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "abc")
MEBIBYTE = 1 << 20
DISK = MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=8 * MEBIBYTE)


@pytest.fixture
def disks(tmp_path: Path) -> DiskStore:
    pools = Pools({"default": tmp_path / "pool"})
    pools.prepare()
    return DiskStore(pools)


def write(path: Path, pattern: int, at: int = 0) -> None:
    command = f"write -P {pattern} {at}M 1M"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, str(path)], check=True, capture_output=True)


def reads(path: Path, pattern: int, at: int = 0) -> bool:
    command = f"read -P {pattern} {at}M 1M"
    done = subprocess.run(["qemu-io", "-r", "-f", "qcow2", "-c", command, str(path)], capture_output=True, check=True)
    return b"verification failed" not in done.stdout


async def capture(disks: DiskStore, uid: str = SNAPSHOT) -> Path:
    """Keep a snapshot of the disk as it is now, and return its layer."""
    (disk,) = disks.read_disks(MACHINE)
    document = MachineSnapshot(uid=uid, namespace="default", name="then", machine_uid=MACHINE)
    disks.snapshots.begin("default", KeptSnapshot(document=document))
    await disks.layers.make(disks.layers.next_path(MACHINE, "default", "root"), disk.path)
    layer = CapturedDisk(name="root", pool="default", file=disk.path.name, capacity_bytes=disk.capacity_bytes)
    hardware = Hardware(memory_bytes=MEBIBYTE, disks=(DISK,))
    captured = Captured(created_at=datetime.now(UTC), hardware=hardware, places=Places(), disks=(layer,))
    disks.snapshots.write(KeptSnapshot(document=document, captured=captured))
    return disk.path


async def test_a_new_layer_is_the_disk_and_what_lies_below_stays(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    write(first, 1)
    assert await capture(disks) == first
    (disk,) = disks.read_disks(MACHINE)
    assert (disk.path.name, disk.layers, disk.capacity_bytes) == ("root.1.qcow2", (first,), 8 * MEBIBYTE)
    write(disk.path, 2)
    assert reads(first, 1)
    larger = DISK.model_copy(update={"size_bytes": 16 * MEBIBYTE})
    await disks.grow_disk(MACHINE, larger)
    assert disks.read_disks(MACHINE)[0].capacity_bytes == 16 * MEBIBYTE
    assert await disks.prepare_disk(MACHINE, DISK, None) == disks.read_disks(MACHINE)[0]


async def test_a_removed_disk_leaves_what_a_snapshot_names_and_the_rest_goes_with_that(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    write(first, 1)
    await capture(disks)
    disks.remove_disk(MACHINE, "default", "root")
    assert disks.read_disks(MACHINE) == ()
    assert reads(first, 1)
    assert [path.name for path in first.parent.glob("*.qcow2")] == ["root.qcow2"]
    disks.snapshots.remove(SNAPSHOT)
    disks.layers.remove_unneeded(MACHINE)
    assert not first.parent.exists()
    assert not list(disks.snapshots.read_all())


async def test_disks_of_several_machines_go_at_once(disks: DiskStore, tmp_path: Path) -> None:
    machines = [str(uuid.uuid4()) for _ in range(8)]
    for _ in range(10):
        for uid in machines:
            await disks.prepare_disk(uid, DISK, None)
        await asyncio.gather(*(asyncio.to_thread(disks.remove_disk, uid, "default", "root") for uid in machines))
        assert list((tmp_path / "pool" / "disks").iterdir()) == []


async def test_a_mark_that_has_outlived_its_layers_goes_with_the_next_disk(disks: DiskStore, tmp_path: Path) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    await disks.prepare_disk(OTHER, DISK, None)
    disks.layers.mark_removed((MACHINE, "default", "root"), 0)
    first.unlink()  # and the daemon was killed
    disks.remove_disk(OTHER, "default", "root")
    assert list((tmp_path / "pool" / "disks").iterdir()) == []


async def test_a_disk_is_made_again_beside_what_a_snapshot_names_of_the_removed_one(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    write(first, 1)
    await capture(disks)
    disks.remove_disk(MACHINE, "default", "root")
    again = await disks.prepare_disk(MACHINE, DISK, None)
    assert (again.path.name, again.layers) == ("root.2.qcow2", ())
    assert reads(again.path, 0)
    assert reads(first, 1)
    assert disks.read_disks(MACHINE) == (again,)
    disks.snapshots.remove(SNAPSHOT)
    disks.layers.remove_unneeded(MACHINE)
    assert [path.name for path in first.parent.iterdir()] == ["root.2.qcow2"], "neither the old layer nor its mark"
    disks.remove_disk(MACHINE, "default", "root")
    assert not first.parent.exists()


async def test_a_removal_that_was_cut_off_is_ended_before_the_disk_is_made_again(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    write(first, 1)
    disks.layers.mark_removed((MACHINE, "default", "root"), 0)
    again = await disks.prepare_disk(MACHINE, DISK, None)
    assert reads(again.path, 0)
    assert [path.name for path in first.parent.iterdir()] == ["root.qcow2"]


async def test_a_disk_that_cannot_be_read_is_not_made_anew(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    first.write_bytes(b"no disk at all")
    with pytest.raises(InvalidError, match="not a qcow2 file any more"):
        await disks.prepare_disk(MACHINE, DISK, None)
    assert first.read_bytes() == b"no disk at all"


async def test_what_another_machines_disk_lies_on_stays(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    write(first, 1)
    await capture(disks)
    copy = disks.layers.next_path(OTHER, "default", "root")
    await disks.layers.make(copy, first)
    disks.snapshots.remove(SNAPSHOT)
    disks.remove_disk(MACHINE, "default", "root")
    assert reads(copy, 1)
    assert disks.read_disks(OTHER)[0].layers == (first,)
    disks.remove_disk(OTHER, "default", "root")
    assert not copy.parent.exists()
    assert not first.parent.exists()


async def test_a_wiped_disk_takes_the_layers_along_that_nobody_else_needs(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    write(first, 1)
    await capture(disks)
    disks.snapshots.remove(SNAPSHOT)
    kept = first.open("rb")
    disks.wipe_disk(MACHINE, "default", "root", lambda _: None, lambda: False)
    assert not first.parent.exists()
    with kept:
        assert b"\1" * 512 not in kept.read(), "it was overwritten before it went"


async def test_a_kept_disk_with_layers_is_taken_over(disks: DiskStore) -> None:
    first = (await disks.prepare_disk(MACHINE, DISK, None)).path
    write(first, 1)
    await capture(disks)
    write(disks.read_disks(MACHINE)[0].path, 2, at=1)
    source = RetainedSource(machine_uid=MACHINE, name="root")
    taken = await disks.prepare_disk(OTHER, DISK.model_copy(update={"source": source}), None)
    assert taken.layers == (first,)
    assert reads(taken.path, 1)
    assert reads(taken.path, 2, at=1)
    assert disks.read_disks(MACHINE) == ()


async def test_what_is_not_whole_is_no_snapshot(disks: DiskStore) -> None:
    await disks.prepare_disk(MACHINE, DISK, None)
    await capture(disks)
    kept = disks.snapshots.get(SNAPSHOT)
    assert kept is not None
    file = disks.snapshots.memory_file(SNAPSHOT).with_name("snapshot.json")
    content = json.loads(file.read_text())
    content["captured"]["disks"][0]["file"] = "../../images/x/disk"
    file.write_text(json.dumps(content))
    assert disks.snapshots.get(SNAPSHOT) is None, "no path leaves the machine's folder"
    disks.remove_disk(MACHINE, "default", "root")
    disks.snapshots.sweep()
    assert file.exists()
    assert len(disks.layers.of_machine(MACHINE)) == 2, "nobody knows what it needs"
    file.unlink()
    disks.snapshots.sweep()
    disks.layers.remove_unneeded(MACHINE)
    assert not file.parent.exists()
    assert disks.layers.of_machine(MACHINE) == ()
