"""The files of copies, made by a real qemu-img in a real pool: all of them appear or none, and none outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import DiskCopySource, MachineDisk
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.errors import ConflictError, InvalidError
from virtfleet_node.core.stored import ImageFiles, StoredDisk
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.pools import Pools

IMAGE, SOURCE, CLONE, OTHER = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "abcd")
MIB = 1 << 20


@pytest.fixture
def disks(tmp_path: Path) -> DiskStore:
    pools = Pools({"default": tmp_path / "pool", "fast": tmp_path / "fast"})
    pools.prepare()
    return DiskStore(pools)


def wanted(name: str, pool: str = "default", clone: Clone = Clone.LINKED, source: str = SOURCE) -> MachineDisk:
    copied = DiskCopySource(machine_uid=source, pool="default", name=name, clone=clone)
    return MachineDisk(name=name, pool=pool, source=copied)


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_source(disks: DiskStore, name: str, backing: Path | None = None) -> StoredDisk:
    folder = disks._pools.folder("default", "disks") / SOURCE
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.qcow2"
    base = ("-b", backing, "-F", "raw") if backing else ()
    run("qemu-img", "create", "-q", "-f", "qcow2", *base, path, "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", path)
    return next(disk for disk in disks.read_disks(SOURCE) if disk.name == name)


def make_image(tmp_path: Path) -> ImageFiles:
    folder = tmp_path / "pool/images" / IMAGE
    folder.mkdir(parents=True)
    (folder / "disk").write_bytes(b"base" * (2 * MIB))
    return ImageFiles(folder / "disk", ImageFormat.RAW, 8 * MIB)


async def copy(disks: DiskStore, source: StoredDisk, disk: MachineDisk, image: ImageFiles | None) -> StoredDisk:
    told: list[float] = []
    files = disks.clones.begin(CLONE, (disk,))
    await disks.clones.copy(source, image, disk, files[disk.pool, disk.name], told.append)
    disks.clones.commit(CLONE, SOURCE, (disk,))
    assert told
    assert told[-1] == 100
    return next(found for found in disks.read_disks(CLONE) if found.name == disk.name)


@pytest.mark.parametrize("clone", Clone)
async def test_a_copy_equals_its_source_and_lies_on_the_image_or_on_nothing(
    disks: DiskStore, tmp_path: Path, clone: Clone
) -> None:
    image = make_image(tmp_path)
    source = make_source(disks, "root", image.path)
    made = await copy(disks, source, wanted("root", "fast", clone), image)
    assert "Images are identical" in run("qemu-img", "compare", source.path, made.path)
    assert made.backing_image_uid == (IMAGE if clone is Clone.LINKED else None)
    assert made.path.parent == tmp_path / "fast/disks" / CLONE
    assert (made.path.stat().st_blocks * 512 < 2 * MIB) == (clone is Clone.LINKED)


async def test_files_that_share_their_blocks_are_equal_and_apart(
    disks: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ioctl is stood in for where the file system has none; what it promises is what is checked."""
    monkeypatch.setattr("virtfleet_node.storage.clones.fcntl.ioctl", _copy_bytes)
    source = make_source(disks, "data")
    made = await copy(disks, source, wanted("data"), None)
    assert made.path.read_bytes() == source.path.read_bytes()
    assert made.path.stat().st_ino != source.path.stat().st_ino


def _copy_bytes(target: int, _request: int, source: int) -> int:
    return os.sendfile(target, source, 0, os.fstat(source).st_size)


def test_what_was_complete_when_the_daemon_died_is_named_and_nothing_else(disks: DiskStore, tmp_path: Path) -> None:
    one, two = wanted("one"), wanted("two", "fast")
    files = disks.clones.begin(CLONE, (one, two))
    for path in files.values():
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    assert not disks.clones.finish(CLONE, SOURCE), "there is no mark: the files may be anything"
    mark = tmp_path / "pool/disks" / CLONE / f"clone-{SOURCE}.json"
    mark.write_text('[["default", "one"], ["fast", "two"]]')
    files["default", "one"].rename(files["default", "one"].with_suffix(""))
    assert not disks.clones.finish(CLONE, OTHER)
    assert disks.clones.finish(CLONE, SOURCE)
    assert [disk.name for disk in disks.read_disks(CLONE)] == ["one", "two"]
    assert not mark.exists()


@pytest.mark.parametrize("mark", ['[["default", "../../escape"]]', '[["nowhere", "one"]]', "[", '{"a": 1}'])
def test_a_mark_that_is_not_ours_names_nothing(disks: DiskStore, tmp_path: Path, mark: str) -> None:
    disks.clones.begin(CLONE, (wanted("one"),))
    (tmp_path / "pool/disks" / CLONE / f"clone-{SOURCE}.json").write_text(mark)
    outside = tmp_path / "pool/escape.qcow2.partial"
    outside.touch()
    try:
        assert not disks.clones.finish(CLONE, SOURCE)
    except InvalidError as error:
        assert "no pool nowhere" in str(error)  # noqa: PT017 -- either way is right, renaming is not
    assert outside.exists()
    assert disks.read_disks(CLONE) == ()


def test_a_link_in_place_of_a_machines_folder_is_refused(disks: DiskStore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "pool/disks" / CLONE).symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidError, match="administrator"):
        disks.clones.begin(CLONE, (wanted("one"),))
    disks.clones.remove_leftovers(CLONE)
    assert list((tmp_path / "outside").iterdir()) == []


def test_leftovers_go_with_the_folder_and_disks_stay(disks: DiskStore, tmp_path: Path) -> None:
    files = disks.clones.begin(CLONE, (wanted("one"), wanted("two", "fast")))
    for path in files.values():
        path.touch()
    kept = tmp_path / "fast/disks" / CLONE / "kept.qcow2"
    kept.touch()
    disks.clones.remove_leftovers(CLONE)
    assert not (tmp_path / "pool/disks" / CLONE).exists()
    assert list((tmp_path / "fast/disks" / CLONE).iterdir()) == [kept]


def test_a_copy_without_room_is_refused_before_it_begins(disks: DiskStore) -> None:
    source = make_source(disks, "data")
    many = [("default", (source.path,))] * 500_000
    with pytest.raises(ConflictError, match=r"Pool default has \d+ bytes free for copies; these need \d+"):
        disks.clones.check_room(many)


def test_a_copy_smaller_than_its_source_is_refused(disks: DiskStore) -> None:
    source = make_source(disks, "data")
    with pytest.raises(InvalidError, match="write a larger size"):
        disks.clones.check(wanted("data").model_copy(update={"size_bytes": MIB}), source)


def test_qemu_img_ends_with_its_daemon(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    run("qemu-img", "create", "-q", "-f", "qcow2", source, "2G")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 400M", source)
    script = (
        "import asyncio, pathlib, sys\n"
        "from virtfleet_node.storage import qemu_img\n"
        "told = lambda percent: print(percent, flush=True)\n"
        "asyncio.run(qemu_img.copy_disk(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), None, told, 1 << 40))"
    )
    with subprocess.Popen([sys.executable, "-c", script, source, target], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        for _ in range(2):  # the first is told before there is a file
            daemon.stdout.readline()
        daemon.send_signal(signal.SIGKILL)
    size = -1
    for _ in range(50):
        before, size = size, target.stat().st_blocks
        if before == size and not run_quietly("fuser", target):
            break
        time.sleep(0.1)
    assert size * 512 < 400 * MIB, "the copy went on"


def run_quietly(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def test_a_file_in_use_is_known(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    assert not await qemu_img.is_in_use(path)
    command = ["qemu-io", "-f", "qcow2", path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:  # noqa: ASYNC220 -- at once
        assert user.stdin is not None
        assert user.stdout is not None
        user.stdin.write(b"read 0 512\n")
        user.stdin.flush()
        assert user.stdout.readline()  # it has the file open; a look before that could keep it from its lock
        assert await qemu_img.is_in_use(path)
        user.kill()
