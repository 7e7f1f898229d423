"""Disks made by a real qemu-img in a real pool."""

import json
import subprocess
from pathlib import Path

import pytest

from small_file_system import mounted
from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import BlankSource, CloudInitFiles, DiskCopySource, ImageDiskSource, MachineDisk
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.errors import InvalidError, PoolFullError
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.media import MediaStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.probe import probe_disk

IMAGE, MACHINE = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "ab")
MEBIBYTE = 1 << 20


@pytest.fixture
def disks(tmp_path: Path) -> DiskStore:
    pools = Pools({"default": tmp_path / "pool"})
    pools.prepare()
    return DiskStore(pools)


@pytest.fixture
def base(tmp_path: Path) -> ImageFiles:
    folder = tmp_path / "pool/images" / IMAGE
    folder.mkdir(parents=True)
    path = folder / "disk"
    path.write_bytes(b"base" * (MEBIBYTE // 4) + bytes(7 * MEBIBYTE))
    return ImageFiles(path, ImageFormat.RAW, 8 * MEBIBYTE)


def clone(kind: Clone, size: int | None = None) -> MachineDisk:
    source = ImageDiskSource(image_uid=IMAGE, clone=kind)
    return MachineDisk(name="root", pool="default", source=source, size_bytes=size)


def check(path: Path) -> None:
    subprocess.run(["qemu-img", "check", "-q", path], check=True)


def info(path: Path) -> dict:
    shown = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True)
    return json.loads(shown.stdout)


async def test_a_linked_clone_names_its_base_and_takes_no_space(disks: DiskStore, base: ImageFiles) -> None:
    stored = await disks.prepare_disk(MACHINE, clone(Clone.LINKED), base)
    assert stored.backing_image_uid == IMAGE
    shown = info(stored.path)
    assert (shown["backing-filename"], shown["backing-filename-format"]) == (str(base.path), "raw")
    assert stored.path.stat().st_blocks * 512 < MEBIBYTE
    assert disks.users(IMAGE) == (MACHINE,)


async def test_a_full_clone_needs_nobody(disks: DiskStore, base: ImageFiles) -> None:
    stored = await disks.prepare_disk(MACHINE, clone(Clone.FULL, 16 * MEBIBYTE), base)
    assert stored.backing_image_uid is None
    assert stored.capacity_bytes == 16 * MEBIBYTE
    base.path.unlink()
    check(stored.path)
    assert disks.users(IMAGE) == ()
    assert stored.path.stat().st_blocks * 512 < 3 * MEBIBYTE, "holes stay holes"


async def test_a_blank_disk_is_thin(disks: DiskStore) -> None:
    wanted = MachineDisk(name="data", pool="default", source=BlankSource(), size_bytes=1 << 40)
    stored = await disks.prepare_disk(MACHINE, wanted, None)
    assert stored.capacity_bytes == 1 << 40
    assert stored.path.stat().st_blocks * 512 < MEBIBYTE


async def test_a_disk_that_is_there_is_kept(disks: DiskStore, base: ImageFiles) -> None:
    first = await disks.prepare_disk(MACHINE, clone(Clone.LINKED), base)
    before = first.path.stat().st_ino
    again = await disks.prepare_disk(MACHINE, clone(Clone.LINKED, 32 * MEBIBYTE), base)
    assert again.path.stat().st_ino == before
    assert disks.read_disks(MACHINE) == (again,)


async def test_a_disk_smaller_than_its_image_is_refused(disks: DiskStore, base: ImageFiles) -> None:
    with pytest.raises(InvalidError, match="write a larger size"):
        await disks.prepare_disk(MACHINE, clone(Clone.LINKED, MEBIBYTE), base)
    assert disks.read_disks(MACHINE) == ()


async def test_an_unknown_pool_is_named_with_those_that_exist(disks: DiskStore, base: ImageFiles) -> None:
    with pytest.raises(InvalidError, match=r"no pool fast; it has: default"):
        await disks.prepare_disk(MACHINE, clone(Clone.LINKED).model_copy(update={"pool": "fast"}), base)


async def test_a_link_in_place_of_a_machines_folder_is_refused(
    disks: DiskStore, base: ImageFiles, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "pool/disks" / MACHINE).symlink_to(outside)
    with pytest.raises(InvalidError, match="administrator"):
        await disks.prepare_disk(MACHINE, clone(Clone.LINKED), base)
    assert disks.read_disks(MACHINE) == ()
    assert list(outside.iterdir()) == []


async def test_the_last_disk_takes_the_folder_with_it(disks: DiskStore, base: ImageFiles, tmp_path: Path) -> None:
    await disks.prepare_disk(MACHINE, clone(Clone.LINKED), base)
    for _ in range(2):
        disks.remove_disk(MACHINE, "default", "root")
        assert list((tmp_path / "pool/disks").iterdir()) == []


async def test_a_cloud_init_medium_is_private_and_readable_by_cloud_init(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    files = CloudInitFiles(meta_data="instance-id: one\n", user_data="#cloud-config\npassword: 's3cret'\n")
    path = await media.write_cloud_init(MACHINE, files)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "cidata" in path.read_bytes()[0x8000:0x9000].decode("ascii", "replace")
    assert b"s3cret" in path.read_bytes()
    assert media.path(MACHINE, files.digest()) == path
    media.remove(MACHINE)
    assert list((tmp_path / "machines").iterdir()) == []


async def test_a_disk_grows_to_its_size_and_stays_when_it_is_larger(disks: DiskStore, base: ImageFiles) -> None:
    stored = await disks.prepare_disk(MACHINE, clone(Clone.LINKED), base)
    for asked, is_now in ((16, 16), (16, 16), (12, 16)):
        await disks.grow_disk(MACHINE, clone(Clone.LINKED, asked * MEBIBYTE))
        (found,) = disks.read_disks(MACHINE)
        assert (found.capacity_bytes, found.backing_image_uid) == (is_now * MEBIBYTE, IMAGE)
    check(stored.path)


async def test_a_disk_that_is_not_there_does_not_grow(disks: DiskStore) -> None:
    with pytest.raises(InvalidError, match="no disk root"):
        await disks.grow_disk(MACHINE, clone(Clone.LINKED, MEBIBYTE))


async def test_what_a_crash_left_of_a_disk_goes_with_its_machine(
    disks: DiskStore, base: ImageFiles, tmp_path: Path
) -> None:
    folder = tmp_path / "pool/disks" / MACHINE
    folder.mkdir()
    (folder / "data.qcow2.partial").touch()
    disks.remove_leftovers(MACHINE)
    assert not folder.exists()
    stored = await disks.prepare_disk(MACHINE, clone(Clone.LINKED), base)
    (folder / "data.qcow2.partial").touch()
    disks.remove_leftovers(MACHINE)
    assert list(folder.iterdir()) == [stored.path], "a disk that is whole is kept by its policy"


def bomb(path: Path) -> None:
    """Make an image of a few kilobytes that has 160 MiB of content."""
    plain = path.with_name("plain")
    command = f"write -P 7 0 {160 * MEBIBYTE}"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", plain, "160M"], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, plain], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", plain, path], check=True)
    plain.unlink()


async def test_a_small_image_with_much_in_it_does_not_fill_a_pool(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb")
    with mounted(tmp_path / "small", 128) as path:
        pools = Pools({"default": path})
        pools.prepare()
        disks = DiskStore(pools)
        base = path / "images" / IMAGE / "disk"
        base.parent.mkdir()
        base.write_bytes((tmp_path / "bomb").read_bytes())
        assert base.stat().st_blocks * 512 < MEBIBYTE
        before = pools.free_bytes("default")
        files = ImageFiles(base, *await probe_disk(base))
        with pytest.raises(PoolFullError, match=r"has \d+ bytes free for copies, and root needs more: free space"):
            await disks.prepare_disk(MACHINE, clone(Clone.FULL), files)
        assert not (path / "disks" / MACHINE).exists()
        assert before - pools.free_bytes("default") < MEBIBYTE

        (linked,) = [await disks.prepare_disk(MACHINE, clone(Clone.LINKED), files)]
        with pytest.raises(PoolFullError, match="root needs more"):
            await disks.copy_whole(linked, lambda _: None)
        target = path / "disks" / MACHINE / "copy.qcow2.partial"
        source = DiskCopySource(machine_uid=MACHINE, pool="default", name="root", clone=Clone.FULL)
        whole = MachineDisk(name="copy", pool="default", source=source)
        with pytest.raises(PoolFullError, match="copy needs more"):
            await disks.clones.copy(linked, files, whole, target, lambda _: None)
        assert [p.name for p in target.parent.iterdir()] == ["root.qcow2"]
