"""Disks that are overwritten before they are removed."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from virtfleet_node.core.errors import InvalidError
from virtfleet_node.core.qcow2 import HEADER_BYTES, parse_header
from virtfleet_node.storage import wipe
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.wipe import wipe_file

MIB = 1 << 20
MACHINE = "aaaaaaaa-2222-3333-4444-555555555555"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with 8 MiB of data in a virtual size of 1 GiB."""
    path = tmp_path / "pool/disks" / MACHINE / "root.qcow2"
    path.parent.mkdir(parents=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"], check=True)
    command = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 512M 8M", path]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the file held, on the disk, where it is about to be cut off."""
    found: list[bytes] = []
    synced: list[int] = []
    truncate, fsync = os.ftruncate, os.fsync

    def note(descriptor: int, size: int) -> None:
        assert synced, "the file is cut before its zeros are on the disk"
        synced.clear()
        found.append(os.pread(descriptor, 1 << 30, size))
        truncate(descriptor, size)

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "ftruncate", note)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(wipe, "_PART_BYTES", 3 * MIB)
    return found


def after(parts: int) -> Callable[[], bool]:
    """Return what asks to stop after some parts."""
    asked = iter(range(1000))
    return lambda: next(asked) >= parts


def test_all_that_a_guest_wrote_is_overwritten_before_it_is_cut_off(disk: Path, cut: list[bytes]) -> None:
    size, told = disk.stat().st_size, list[float]()
    assert b"\7" * MIB in disk.read_bytes()
    assert wipe_file(disk, told.append, lambda: False)
    assert sum(map(len, cut)) == size - HEADER_BYTES
    assert not any(part.strip(b"\0") for part in cut)
    assert len(cut) > 2
    assert told == sorted(told)
    assert parse_header(disk.read_bytes()).virtual_size_bytes == 1 << 30


def test_what_was_stopped_goes_on_where_it_was_and_is_known_as_a_disk_meanwhile(disk: Path, cut: list[bytes]) -> None:
    disks = DiskStore(Pools({"default": disk.parents[2]}))
    size = disk.stat().st_size
    disks.wipe_disk(MACHINE, "default", "root", lambda _: None, after(1))
    assert HEADER_BYTES < disk.stat().st_size < size
    assert [found.name for found in disks.read_disks(MACHINE)] == ["root"]
    disks.wipe_disk(MACHINE, "default", "root", lambda _: None, after(1000))
    assert not disk.parent.exists()
    assert sum(map(len, cut)) == size - HEADER_BYTES
    disks.wipe_disk(MACHINE, "default", "root", lambda _: None, after(1000))


def test_holes_stay_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"\7" * MIB)
    monkeypatch.setattr(os, "ftruncate", lambda *_: None)
    monkeypatch.setattr(wipe, "_PART_BYTES", 1 << 38)
    assert wipe_file(path, lambda _: None, lambda: False)
    with path.open("rb") as file:
        file.seek(1 << 39)
        assert file.read(MIB) == bytes(MIB)
    assert path.stat().st_blocks * 512 <= 2 * MIB


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"\7" * MIB)
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(InvalidError, match="administrator"):
        wipe_file(tmp_path / "link", lambda _: None, lambda: False)
    assert victim.read_bytes() == b"\7" * MIB
