"""Disks copied from another machine's: while it is off and while it runs, whatever is killed meanwhile."""

import asyncio
from pathlib import Path

import pytest

from machine_rig import DISK, Rig, new_machine
from source_machines import (
    MIB,
    SLOW,
    blank,
    content,
    fill,
    holds,
    kill,
    make_off,
    make_slow,
    stored,
    until_not_frozen,
)
from virtfleet_api.machine import DiskCopySource, ImageDiskSource, Machine, MachineDisk, Run
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.agent.entry import Entry
from virtfleet_node.core.observed import Observed

SECTOR = 512


def copy_of(
    source: Machine, *names: str, clone: Clone = Clone.LINKED, size: int | None = None
) -> tuple[MachineDisk, ...]:
    return tuple(
        MachineDisk(
            name=name,
            pool="default",
            source=DiskCopySource(machine_uid=source.uid, pool="default", name=name, clone=clone),
            size_bytes=size,
        )
        for name in names
    )


async def until_copying(rig: Rig, machine: Machine) -> None:
    await rig.reports.until(
        lambda: (r := rig.last(machine)) and r.reason == "Cloning" and r.message, 30, "the copy's progress"
    )


def partials(rig: Rig) -> list[Path]:
    return [*rig.pool.rglob("*.partial"), *rig.pool.rglob("clone-*.json")]


async def test_clones_of_a_machine_that_is_off_share_its_image_and_never_its_disk(rig: Rig) -> None:
    image = MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=DISK))
    source = await make_off(rig, image, blank("data"))
    root, data = stored(rig, source)["root"], stored(rig, source)["data"]
    fill(root.path, 2, pattern=9, at=30)
    fill(data.path, 4)
    expected = content(root.path), content(data.path)
    linked = new_machine(disks=copy_of(source, "root", "data"), run=Run.STOPPED)
    full = new_machine(disks=copy_of(source, "root", clone=Clone.FULL, size=80 * MIB), run=Run.STOPPED)
    for clone in (linked, full):
        await rig.put(clone)
    for clone in (linked, full):
        await rig.reports.until(lambda c=clone: (r := rig.last(c)) and r.phase is Phase.STOPPED and r.disks, 30, "it")
    assert stored(rig, linked)["root"].backing_image_uid == DISK
    assert stored(rig, full)["root"].backing_image_uid is None
    assert stored(rig, full)["root"].capacity_bytes == 80 * MIB
    assert stored(rig, linked)["root"].path.stat().st_blocks * 512 < 4 * MIB, "only what differs is copied"
    fill(root.path, 8, pattern=1)
    await rig.remove(source)
    assert (content(stored(rig, linked)["root"].path), content(stored(rig, linked)["data"].path)) == expected
    assert content(stored(rig, full)["root"].path)[: 40 * MIB] == expected[0]
    linked = await rig.put(linked, run=Run.RUNNING)
    await rig.until_console(linked, "READY")
    for clone in (linked, full):
        await rig.remove(clone)
    assert partials(rig) == []


async def test_a_clone_of_a_running_machine_holds_all_its_disks_at_one_moment(rig: Rig) -> None:
    source = new_machine(disks=(blank("one"), blank("two")), grace_period_seconds=0)
    await rig.put(source)
    loop = (
        "i=0; while :; do for d in a b; do printf %0512d $i | dd of=/dev/vd$d bs=512 seek=$i conv=notrunc,fsync "
        "2>/dev/null; done; i=$((i+1)); done"
    )
    await rig.until_agent(source)
    await rig.type(source, f"({loop}) &")
    log = stored(rig, source)
    await rig.reports.until(lambda: log["one"].path.stat().st_blocks > 600, 60, "the guest writes")
    one, two = copy_of(source, "one", "two")
    again = two.model_copy(update={"name": "again", "size_bytes": 100 * MIB})
    clone = new_machine(disks=(one, two, again), run=Run.STOPPED)
    await rig.put(clone)
    await rig.reports.until(lambda: (r := rig.last(clone)) and len(r.disks) == 3, 60, "the clone's disks")
    made = stored(rig, clone)
    counts = [written(content(made[name].path)) for name in ("one", "two", "again")]
    assert counts[1] > 0
    assert counts[1] == counts[2]
    assert [made[name].capacity_bytes // MIB for name in ("two", "again")] == [64, 100]
    assert counts[0] - counts[1] in {0, 1}, "the disks are from different moments"
    assert rig.domain(source).isActive()
    await until_not_frozen(rig, source)
    await rig.type(source, "kill %1; echo THA$((0))WED; sync", 1)
    await rig.until_console(source, "THA0WED")
    for machine in (source, clone):
        await rig.remove(machine)


def written(disk: bytes) -> int:
    """Return how many numbered sectors there are; they are whole, in order, and nothing is behind them."""
    end = disk.index(bytes(SECTOR))
    numbers = [int(disk[at : at + SECTOR]) for at in range(0, end - end % SECTOR, SECTOR)]
    assert numbers == list(range(len(numbers)))
    assert not disk[len(numbers) * SECTOR :].strip(b"\0")
    return len(numbers)


async def test_a_start_of_the_source_does_not_wait_for_a_copy(rig: Rig) -> None:
    source = await make_off(rig, blank("data", 2048))
    await asyncio.to_thread(fill, stored(rig, source)["data"].path, 1200)
    clone = new_machine(disks=copy_of(source, "data"), run=Run.STOPPED)
    await rig.put(clone)
    await until_copying(rig, clone)
    await rig.put(source, run=Run.RUNNING)
    await rig.until_phase(source, Phase.RUNNING)
    assert stored(rig, clone) == {}, "the copy was complete before its source was started: it shows nothing"
    await rig.until_phase(clone, Phase.STOPPED)
    assert set(stored(rig, clone)) == {"data"}
    assert rig.last(source).restarts == 0
    for machine in (clone, source):
        await rig.remove(machine)


async def test_a_clone_that_is_deleted_ends_its_copy_and_leaves_nothing(rig: Rig) -> None:
    source = await make_slow(rig)
    clone = new_machine(disks=copy_of(source, "data"))
    await rig.put(clone)
    await until_copying(rig, clone)
    await rig.remove(clone)
    assert partials(rig) == []
    assert not (rig.pool / "disks" / clone.uid).exists()
    assert rig.domain(source).jobStats().get("type", 0) == 0
    assert rig.last(source).phase is Phase.RUNNING
    await rig.remove(source)


async def test_a_copy_is_made_anew_whatever_is_killed_meanwhile(rig: Rig) -> None:
    source = await make_slow(rig)
    for victim in ("daemon", "libvirtd", "qemu"):
        clone = new_machine(disks=copy_of(source, "data"), run=Run.STOPPED)
        await rig.put(clone)
        await until_copying(rig, clone)
        before = rig.qemu_pids()
        await kill(rig, victim)
        await rig.until_phase(clone, Phase.STOPPED, 180)
        assert await asyncio.to_thread(holds, stored(rig, clone)["data"].path, SLOW)
        assert partials(rig) == []
        assert victim == "qemu" or rig.qemu_pids() == before
        rig.reconnect()
        await rig.reports.until(lambda: rig.last(source).phase is Phase.RUNNING, 60, "the source runs")
        await rig.remove(clone)
    await rig.remove(source)


async def test_a_copy_that_cannot_be_made_says_why_until_its_document_is_mended(rig: Rig) -> None:
    source = await make_off(rig, blank("data"))
    clone = new_machine(disks=copy_of(source, "data", size=MIB), run=Run.STOPPED)
    await rig.put(clone)
    await rig.reports.until(lambda: (r := rig.last(clone)) and r.reason == "CloneFailed", 20, "the failure to be told")
    assert "write a larger size" in rig.last(clone).message
    mended = clone.hardware.model_copy(update={"disks": copy_of(source, "data")})
    clone = await rig.put(clone, hardware=mended)
    await rig.until_phase(clone, Phase.STOPPED)
    for machine in (clone, source):
        await rig.remove(machine)


async def test_a_source_that_is_deleted_stays_until_its_copies_are_made(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await make_slow(rig)
    clone = new_machine(disks=copy_of(source, "data"), run=Run.STOPPED)
    await rig.put(clone)
    await until_copying(rig, clone)
    seen, told = await look_slowly(rig, source, monkeypatch)
    await seen.wait()
    await rig.put(source, run=Run.ABSENT)
    told.set()
    await rig.reports.until(lambda: rig.last(source).reason == "WaitingForCopies", 60, "the wait to be told")
    assert f"default/{clone.name}" in rig.last(source).message
    await rig.until_phase(source, Phase.ABSENT)
    assert set(stored(rig, clone)) == {"data"}
    await rig.remove(clone)


async def look_slowly(
    rig: Rig, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> tuple[asyncio.Event, asyncio.Event]:
    """Have the daemon see a machine, and go on with what it has seen only when it is told."""
    reconciler, seen, told = rig.daemon._reconciler, asyncio.Event(), asyncio.Event()
    look = reconciler._observe

    async def slowly(uid: str, entry: Entry) -> Observed:
        found = await look(uid, entry)
        if uid == machine.uid:
            seen.set()
            await told.wait()
        return found

    monkeypatch.setattr(reconciler, "_observe", slowly)
    rig.daemon._queue.add(machine.uid)
    return seen, told
