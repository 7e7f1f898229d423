"""A disk that a machine has left behind becomes another's: one rename in a real pool, whatever ends in between."""

import os
from pathlib import Path
from typing import Any

import pytest

from virtfleet_api.machine import BlankSource, MachineDisk, RetainedSource
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.pools import Pools

OLD, NEW = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "ab")
MEBIBYTE = 1 << 20
TAKEN = MachineDisk(name="mine", pool="default", source=RetainedSource(machine_uid=OLD, name="data"))


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def disks(tmp_path: Path) -> DiskStore:
    pools = Pools({"default": tmp_path / "pool"})
    pools.prepare()
    return DiskStore(pools)


async def leave(disks: DiskStore, *names: str) -> dict[str, int]:
    """Make disks of the former machine, and return their inodes."""
    made = [MachineDisk(name=name, pool="default", source=BlankSource(), size_bytes=MEBIBYTE) for name in names]
    return {disk.name: (await disks.prepare_disk(OLD, disk, None)).path.stat().st_ino for disk in made}


async def test_the_file_itself_moves_and_grows_and_the_empty_folder_goes(disks: DiskStore) -> None:
    before = await leave(disks, "data")
    larger = TAKEN.model_copy(update={"size_bytes": 4 * MEBIBYTE})
    stored = await disks.prepare_disk(NEW, larger, None)
    assert stored.path.stat().st_ino == before["data"]
    assert stored.capacity_bytes == 4 * MEBIBYTE
    assert disks.owners() == {NEW}
    again = await disks.prepare_disk(NEW, larger, None)
    assert again == stored, "done twice is done once"


async def test_other_disks_of_the_former_machine_stay(disks: DiskStore) -> None:
    await leave(disks, "data", "logs")
    await disks.prepare_disk(NEW, TAKEN, None)
    assert [disk.name for disk in disks.read_disks(OLD)] == ["logs"]


async def test_a_disk_that_is_not_there_is_not_made_up(disks: DiskStore, tmp_path: Path) -> None:
    await leave(disks, "logs")
    with pytest.raises(ConflictError, match="there is none in pool default"):
        await disks.prepare_disk(NEW, TAKEN, None)
    (tmp_path / "pool/disks" / OLD / "data.qcow2").symlink_to("/etc/passwd")
    with pytest.raises(ConflictError):
        await disks.prepare_disk(NEW, TAKEN, None)
    assert disks.read_disks(NEW) == ()


async def test_a_disk_of_the_machine_itself_is_never_replaced(disks: DiskStore) -> None:
    await leave(disks, "data")
    own = MachineDisk(name="mine", pool="default", source=BlankSource(), size_bytes=2 * MEBIBYTE)
    first = await disks.prepare_disk(NEW, own, None)
    stored = await disks.prepare_disk(NEW, TAKEN, None)
    assert stored == first
    assert [disk.name for disk in disks.read_disks(OLD)] == ["data"]


@pytest.mark.parametrize("step", ["mkdir", "rename", "rmdir", "fsync"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_wherever_it_is_killed_the_disk_is_in_one_place_and_the_next_try_ends_it(
    disks: DiskStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    after: bool,  # noqa: FBT001 -- a case
) -> None:
    before = await leave(disks, "data")
    real = getattr(os, step)

    def die(*words: Any, **named: Any) -> None:
        if after:
            real(*words, **named)
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(os, step, die)
        with pytest.raises(Killed):
            await disks.prepare_disk(NEW, TAKEN, None)
    assert len(disks.read_disks(OLD)) + len(disks.read_disks(NEW)) == 1
    stored = await disks.prepare_disk(NEW, TAKEN, None)
    assert stored.path.stat().st_ino == before["data"]
    assert [path.name for path in stored.path.parent.iterdir()] == ["mine.qcow2"]
    assert disks.read_disks(OLD) == ()
    disks.remove_leftovers(OLD)  # as when its node is asked what is left
    assert disks.owners() == {NEW}
