"""Layers folded by a real qemu-img in a real pool: every content that somebody needs stays, and no file too many."""

import asyncio
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from layer_trees import MIB, capture, files, go_back, named, read, write
from layer_victim import fold
from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import BlankSource, DiskCopySource, ImageDiskSource, MachineDisk
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.errors import InvalidError, PoolFullError
from virtfleet_node.core.layers import Layer
from virtfleet_node.core.plan_merge import MergeLive, next_step
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.pools import Pools

MACHINE, OTHER, IMAGE, FIRST, SECOND, THIRD = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "abcdef")
DISK = MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=8 * MIB)
FAST = 1 << 30
VICTIM = Path(__file__).parents[1] / "support" / "layer_victim.py"


@pytest.fixture
def disks(tmp_path: Path) -> DiskStore:
    pools = Pools({"default": tmp_path / "pool"})
    pools.prepare()
    return DiskStore(pools)


@pytest.fixture
def image(tmp_path: Path) -> ImageFiles:
    folder = tmp_path / "pool/images" / IMAGE
    folder.mkdir(parents=True)
    (folder / "disk").write_bytes(b"base" * (2 * MIB))
    return ImageFiles(folder / "disk", ImageFormat.RAW, 8 * MIB)


def tip(disks: DiskStore, uid: str = MACHINE) -> Path:
    (disk,) = disks.read_disks(uid)
    return disk.path


async def make_tree(disks: DiskStore, image: ImageFiles | None = None) -> dict[str, bytes]:
    """Make a disk with two branches above its first snapshot, and return what each snapshot and the disk hold."""
    source = ImageDiskSource(image_uid=IMAGE) if image else BlankSource()
    await disks.prepare_disk(MACHINE, DISK.model_copy(update={"source": source}), image)
    write(tip(disks), 1, 0, 4)
    await capture(disks, MACHINE, FIRST)
    write(tip(disks), 2, 1, 2)
    await capture(disks, MACHINE, SECOND)
    write(tip(disks), 3, 2, 3)
    await capture(disks, MACHINE, THIRD)
    await go_back(disks, MACHINE, FIRST)
    write(tip(disks), 4, 3, 2)
    return contents(disks, FIRST, SECOND, THIRD)


def contents(disks: DiskStore, *snapshots: str) -> dict[str, bytes]:
    return {uid: read(named(disks, uid)) for uid in snapshots} | {"disk": read(tip(disks))}


@pytest.mark.parametrize("order", [(FIRST, SECOND, THIRD), (THIRD, SECOND, FIRST), (SECOND, FIRST, THIRD)])
async def test_snapshots_go_one_by_one_and_what_is_left_stays_as_it_was(
    disks: DiskStore, image: ImageFiles, order: tuple[str, ...]
) -> None:
    before = await make_tree(disks, image)
    left = list(order)
    for uid in order:
        disks.snapshots.remove(uid)
        left.remove(uid)
        await fold(disks, MACHINE, FAST)
        assert contents(disks, *left) == {name: before[name] for name in (*left, "disk")}
        fork = bool({SECOND, THIRD} & set(left))
        assert len(files(disks, MACHINE)) <= len(left) + fork + 1
        assert disks.users(IMAGE) == (MACHINE,)
    assert len(files(disks, MACHINE)) == 1
    assert disks.read_disks(MACHINE)[0].backing_image_uid == IMAGE


async def test_a_disk_that_has_grown_between_its_snapshots_is_merged(disks: DiskStore) -> None:
    await disks.prepare_disk(MACHINE, DISK, None)
    write(tip(disks), 1, 0, 8)
    await capture(disks, MACHINE, FIRST)
    larger = DISK.model_copy(update={"size_bytes": 12 * MIB})
    await disks.grow_disk(MACHINE, larger)
    write(tip(disks), 2, 10)
    before = read(tip(disks))
    disks.snapshots.remove(FIRST)
    assert await fold(disks, MACHINE, FAST) == 1
    assert read(tip(disks)) == before
    assert disks.read_disks(MACHINE)[0].capacity_bytes == 12 * MIB


async def test_what_the_guest_has_discarded_stays_away(disks: DiskStore) -> None:
    await disks.prepare_disk(MACHINE, DISK, None)
    write(tip(disks), 1, 0, 8)
    await capture(disks, MACHINE, FIRST)
    discard(tip(disks))
    before = read(tip(disks))
    disks.snapshots.remove(FIRST)
    await fold(disks, MACHINE, FAST)
    assert read(tip(disks)) == before
    assert before[MIB : 2 * MIB] == bytes(MIB)


def discard(path: Path) -> None:
    for command in ("write -z 1M 1M", "discard 3M 1M"):
        subprocess.run(["qemu-io", "-f", "qcow2", "-d", "unmap", "-c", command, path], check=True, capture_output=True)


async def test_nothing_is_folded_while_a_snapshot_cannot_be_read(disks: DiskStore) -> None:
    await make_tree(disks)
    disks.snapshots.memory_file(FIRST).with_name("snapshot.json").write_text("{}")
    there = files(disks, MACHINE)
    assert disks.merges.look() is None
    assert files(disks, MACHINE) == there


async def test_layers_of_a_machine_that_is_gone_are_folded_by_who_lies_on_them(disks: DiskStore) -> None:
    await make_tree(disks)
    copy = disks.layers.next_path(OTHER, "default", "root")
    await disks.layers.make(copy, named(disks, THIRD))
    write(copy, 9, 7)
    before = read(copy)
    disks.remove_disk(MACHINE, "default", "root")
    for uid in (FIRST, SECOND, THIRD):
        disks.snapshots.remove(uid)
    await fold(disks, OTHER, FAST)
    assert read(copy) == before
    assert len(files(disks, MACHINE)) == 2, "one layer, and that its disk was removed"
    disks.remove_disk(OTHER, "default", "root")
    assert (files(disks, MACHINE), files(disks, OTHER)) == ([], [])


async def opened(path: Path) -> asyncio.subprocess.Process:
    """Return a program that has a disk open. It ends when it is started while somebody looks whether it has."""
    async with asyncio.timeout(60):
        while True:
            guest = await asyncio.create_subprocess_exec("qemu-io", "-f", "qcow2", "-c", "sleep 60000", path)
            while guest.returncode is None:
                await asyncio.sleep(0.1)
                if await qemu_img.is_in_use(path):
                    return guest


async def test_whoever_has_a_layer_open_keeps_it_from_being_written(disks: DiskStore) -> None:
    await make_tree(disks)
    before = contents(disks, THIRD)
    for uid in (FIRST, SECOND):
        disks.snapshots.remove(uid)
    copy = disks.layers.next_path(OTHER, "default", "root")
    await disks.layers.make(copy, named(disks, THIRD))
    guest = await opened(copy)
    with pytest.raises(InvalidError, match="lock"):
        await fold(disks, MACHINE, FAST)
    guest.kill()
    await guest.wait()
    assert contents(disks, THIRD) == before


async def test_folding_that_is_killed_at_any_moment_keeps_all_content_and_ends(
    disks: DiskStore, tmp_path: Path
) -> None:
    before = await make_tree(disks)
    chance = random.Random()
    command = [sys.executable, VICTIM, tmp_path / "pool", MACHINE, str(6 * MIB)]
    left = [FIRST, SECOND, THIRD]
    for round_number in range(8):
        if round_number in {1, 3, 5}:
            disks.snapshots.remove(left.pop(0))
        await asyncio.to_thread(run_and_kill, command, chance.uniform(0, 0.6))
        assert contents(disks, *left) == {name: before[name] for name in (*left, "disk")}
    await fold(disks, MACHINE, FAST)
    assert contents(disks) == {"disk": before["disk"]}
    assert len(files(disks, MACHINE)) == 1


def run_and_kill(command: list[str | Path], seconds: float) -> None:
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    process.wait()
    time.sleep(0.05)  # its qemu-img ends with it


async def merged_by_qemu(disks: DiskStore) -> tuple[MergeLive, dict[str, bytes]]:
    """Bring the files to where QEMU has just merged layers of a running guest, and return that with the contents."""
    await disks.prepare_disk(MACHINE, DISK, None)
    write(tip(disks), 1, 0, 4)
    await capture(disks, MACHINE, FIRST)
    write(tip(disks), 2, 1, 2)
    await capture(disks, MACHINE, SECOND)
    write(tip(disks), 3, 2, 3)
    before = contents(disks, SECOND)
    disks.snapshots.remove(FIRST)
    seen = disks.merges.look()
    assert seen is not None
    step = next_step(MACHINE, replace(seen, guests={MACHINE: {tip(disks): "vda"}}))
    assert isinstance(step, MergeLive)
    disks.merges.begin(step)
    await qemu_img.commit(step.upper.path, step.lower.path, FAST, lambda _: None)
    await qemu_img.set_backing(step.child.path, step.lower.path)
    return step, before


def below(disks: DiskStore, layer: Layer) -> Path | None:
    found = disks.layers.read(layer.path)
    return found.below if found else None


async def test_what_qemu_has_merged_is_named_anew(disks: DiskStore) -> None:
    step, before = await merged_by_qemu(disks)
    (kept,) = disks.merges.begun(MACHINE)
    for _ in range(2):
        await disks.merges.recover(MACHINE, kept, running=True)
        assert files(disks, MACHINE) == sorted([step.lower.path.name, step.child.path.name])
        assert named(disks, SECOND) == step.lower.path
        assert contents(disks, SECOND) == before
    assert disks.merges.begun(MACHINE) == ()


async def test_what_qemu_may_not_have_written_when_it_ended_is_merged_anew(disks: DiskStore) -> None:
    step, before = await merged_by_qemu(disks)
    write(step.lower.path, 77, 1, 2)  # as if nothing of the upper layer had got there
    (kept,) = disks.merges.begun(MACHINE)
    await disks.merges.recover(MACHINE, kept, running=False)
    assert below(disks, step.child) == step.upper.path
    assert contents(disks, SECOND) == before
    await fold(disks, MACHINE, FAST)
    assert contents(disks, SECOND) == before
    assert len(files(disks, MACHINE)) == 2


async def test_a_merge_that_was_ended_before_it_was_done_is_forgotten(disks: DiskStore) -> None:
    step, before = await merged_by_qemu(disks)
    await qemu_img.set_backing(step.child.path, step.upper.path)
    (kept,) = disks.merges.begun(MACHINE)
    await disks.merges.recover(MACHINE, kept, running=True)
    assert named(disks, SECOND) == step.upper.path
    assert contents(disks, SECOND) == before
    assert disks.merges.begun(MACHINE) == ()


@pytest.mark.parametrize("content", ["{", '{"pool":"default","disk":"root","lower":"../x.qcow2"}', "[]"])
async def test_a_file_that_is_not_ours_says_nothing(disks: DiskStore, content: str) -> None:
    await disks.prepare_disk(MACHINE, DISK, None)
    (tip(disks).parent / "root.merging").write_text(content)
    assert disks.merges.begun(MACHINE) == ()
    disks.remove_disk(MACHINE, "default", "root")
    assert files(disks, MACHINE) == []


async def test_a_pool_without_room_is_told(disks: DiskStore) -> None:
    with pytest.raises(PoolFullError, match=r"pool default has \d+ bytes free"):
        disks.merges.check_room("default", 1 << 60)
    disks.merges.check_room("default", 1)


@pytest.mark.parametrize("clone", Clone)
async def test_a_copy_of_a_disk_in_many_layers_holds_them_all(
    disks: DiskStore, image: ImageFiles, clone: Clone
) -> None:
    await disks.prepare_disk(MACHINE, DISK.model_copy(update={"source": ImageDiskSource(image_uid=IMAGE)}), image)
    for number in range(33):
        await disks.layers.make(disks.layers.next_path(MACHINE, "default", "root"), tip(disks))
        write(tip(disks), number + 1, number % 7)
    (source,) = disks.read_disks(MACHINE)
    copied = DiskCopySource(machine_uid=MACHINE, pool="default", name="root", clone=clone)
    wanted = MachineDisk(name="root", pool="default", source=copied)
    target = disks.clones.begin(OTHER, (wanted,))["default", "root"]
    await disks.clones.copy(source, image, wanted, target, lambda _: None)
    disks.clones.commit(OTHER, MACHINE, (wanted,))
    (made,) = disks.read_disks(OTHER)
    assert read(made.path) == read(source.path)
    assert (made.layers, made.backing_image_uid) == ((), IMAGE if clone is Clone.LINKED else None)
    assert files(disks, OTHER) == ["root.qcow2"]


async def test_a_disk_that_is_made_independent_lies_on_nothing_and_snapshots_stay(
    disks: DiskStore, image: ImageFiles
) -> None:
    before = await make_tree(disks, image)
    (disk,) = disks.read_disks(MACHINE)
    await disks.copy_whole(disk, lambda _: None)
    disks.replace_disk(MACHINE, "default", "root")
    (disk,) = disks.read_disks(MACHINE)
    assert (disk.layers, disk.backing_image_uid, disk.needs_others) == ((), None, False)
    assert contents(disks, FIRST, SECOND, THIRD) == before
    assert disks.users(IMAGE) == (MACHINE,), "a snapshot lies on it"
    for uid in (FIRST, SECOND, THIRD):
        disks.snapshots.remove(uid)
    await fold(disks, MACHINE, FAST)
    assert (files(disks, MACHINE), disks.users(IMAGE)) == ([disk.path.name], ())
    assert read(disk.path) == before["disk"]


async def test_a_disk_above_another_machines_layers_needs_them_until_it_is_independent(disks: DiskStore) -> None:
    await make_tree(disks)
    await disks.layers.make(disks.layers.next_path(OTHER, "default", "root"), named(disks, SECOND))
    (disk,) = disks.read_disks(OTHER)
    assert disk.needs_others
    assert not disks.read_disks(MACHINE)[0].needs_others
    before = read(disk.path)
    await disks.copy_whole(disk, lambda _: None)
    disks.replace_disk(OTHER, "default", "root")
    (disk,) = disks.read_disks(OTHER)
    assert (disk.needs_others, read(disk.path)) == (False, before)
