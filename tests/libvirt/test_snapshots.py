"""Machines captured while they run and while they are off, and what is left of that afterwards."""

import asyncio
import time

import pytest

from captures import restore
from machine_rig import Rig, new_machine
from small_file_system import mounted
from snapshots import at, begin, capture, layers, left, remove, report_of, slowly, snapshot_of, until
from source_machines import blank, content, fill, stored
from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import Phase
from virtfleet_api.vm_snapshot import SnapshotIndication, SnapshotMode, SnapshotPhase
from virtfleet_node.core.errors import ConflictError, InvalidError
from virtfleet_node.core.pool_rules import PoolRules

MIB = 1 << 20
COUNTER = "(i=0; while :; do i=$((i+1)); echo AT $i >/dev/console; sleep 0.1; done) &"


async def make_counting(rig: Rig, *names: str) -> Machine:
    """Return a machine that runs, and counts in its memory."""
    machine = new_machine(disks=tuple(blank(name) for name in names), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    await rig.type(machine, COUNTER)
    await rig.until_console(machine, "AT ", 5)
    return machine


async def test_a_guest_goes_on_while_its_memory_is_captured_and_is_put_back_to_that_instant(rig: Rig) -> None:
    machine = await make_counting(rig, "one", "two")
    with slowly(rig):
        snapshot = await begin(rig, machine, exclude_disks=("two",))
        await rig.reports.until(
            lambda: (r := report_of(rig, snapshot)) and r.progress_percent, 20, "the capture's progress"
        )
        machine = await rig.put(machine, grace_period_seconds=1)  # what is kept of the machine can be written meanwhile
        begun = len(at(rig.console(machine)))
        await rig.reports.until(lambda: len(at(rig.console(machine))) > begun + 3, 10, "the guest goes on")
        during = report_of(rig, snapshot)
        assert during is not None
        assert during.phase is SnapshotPhase.CAPTURING, "the guest has only gone on afterwards"
    report = await until(rig, snapshot, SnapshotPhase.READY)
    assert report.indications == (SnapshotIndication.ONLINE, SnapshotIndication.MEMORY)
    assert [(disk.name, disk.capacity_bytes) for disk in report.disks] == [("one", 64 * MIB)]
    assert report.pause_milliseconds
    assert layers(rig, machine) == {"one.qcow2", "one.1.qcow2", "two.qcow2"}
    stored_now = (await rig.hypervisor.read(machine.uid)).stored
    assert stored_now is not None
    assert (stored_now.record.snapshot_uid, stored_now.desired.grace_period_seconds) == (snapshot.uid, 1)
    assert await rig.daemon.put_snapshot(snapshot) == report

    plain = report.memory_bytes or 0
    await rig.reports.until(lambda: (r := report_of(rig, snapshot)) and r.memory_bytes != plain, 60, "its compression")
    compressed = report_of(rig, snapshot)
    assert compressed is not None
    assert compressed.memory_bytes is not None
    assert compressed.memory_bytes < plain / 2
    seen = len(at(rig.console(machine)))
    await rig.reports.until(lambda: len(at(rig.console(machine))) > seen + 5, 30, "the guest goes on")
    numbers, length = at(rig.console(machine)), len(rig.console(machine))
    assert numbers == list(range(1, len(numbers) + 1)), "the guest's memory is another"
    asked = restore(snapshot.uid)
    machine = await rig.put(machine, restore=asked)
    await rig.reports.until(
        lambda: (r := rig.last(machine)) and r.restore and r.restore.token == asked.token and r.restore.done, 60, "it"
    )

    def restored() -> bool:
        again = at(rig.console(machine)[length:])  # it may have gone on for a moment before it was put back
        return any(number <= numbers[-1] for number in again[:-3])

    await rig.reports.until(restored, 30, "the guest goes on where it was")
    assert begun < min(at(rig.console(machine)[length:])) < numbers[-1]
    assert rig.console(machine).count("READY") == 1
    await remove(rig, machine, snapshot.uid)
    assert report_of(rig, snapshot) is None
    await rig.remove(machine)
    assert not left(rig)
    assert not layers(rig, machine)


async def test_disks_alone_are_captured_of_a_guest_and_of_a_machine_that_is_off(rig: Rig) -> None:
    machine = new_machine(disks=(blank("data"),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    frozen = await capture(rig, machine, mode=SnapshotMode.DISK)
    assert frozen.indications == (SnapshotIndication.ONLINE, SnapshotIndication.GUEST_AGENT)
    assert (frozen.memory_bytes, frozen.parent_uid) == (None, None)
    assert not (rig.state / "machines" / machine.uid / "frozen").exists()
    torn = await capture(rig, machine, mode=SnapshotMode.DISK, quiesce=False)
    assert torn.indications == (SnapshotIndication.ONLINE, SnapshotIndication.CRASH_CONSISTENT)
    assert torn.parent_uid == frozen.uid
    await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    fill(stored(rig, machine)["data"].path, 4)
    before = content(stored(rig, machine)["data"].path)
    off = await capture(rig, machine)
    assert (off.indications, off.memory_bytes) == ((SnapshotIndication.OFFLINE,), None)
    assert off.parent_uid == torn.uid
    assert off.disks[0].size_bytes >= 4 * MIB
    fill(stored(rig, machine)["data"].path, 8, pattern=9)
    kept = rig.disks.snapshots.get(off.uid)
    assert kept is not None
    assert kept.captured is not None
    assert content(rig.disks.snapshots.layer(machine.uid, kept.captured.disks[0])) == before
    await rig.daemon.put_snapshot(
        snapshot_of(machine, uid=torn.uid, name=torn.name, mode="Disk", quiesce=False, present=False)
    )
    await rig.remove(machine)
    assert {report.uid for report in rig.daemon.list_snapshots()} == {frozen.uid, off.uid}
    assert content(rig.disks.snapshots.layer(machine.uid, kept.captured.disks[0])) == before, "it went with the machine"
    await rig.restart_daemon()
    for report in (off, frozen):
        await remove(rig, machine, report.uid)
    assert not rig.daemon.list_snapshots()
    assert not left(rig)
    assert not layers(rig, machine)


async def test_what_cannot_be_captured_is_refused(rig: Rig) -> None:
    machine = new_machine(disks=(blank("data"),), grace_period_seconds=0, run=Run.STOPPED)
    bare = new_machine(run=Run.STOPPED)
    for one in (machine, bare):
        await rig.put(one)
    refusals = (
        (snapshot_of(new_machine()), ConflictError, "There is no machine"),
        (snapshot_of(bare), InvalidError, "no disks"),
        (snapshot_of(machine, exclude_disks=("date",)), InvalidError, "no disks date; it has data"),
        (snapshot_of(machine, exclude_disks=("data",)), InvalidError, "leaves no disk"),
        (snapshot_of(machine), ConflictError, "not there yet"),
    )
    for snapshot, kind, words in refusals:
        with pytest.raises(kind, match=words):
            await rig.daemon.put_snapshot(snapshot)
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING)
    snapshot = snapshot_of(machine, mode=SnapshotMode.DISK)
    await rig.daemon.put_snapshot(snapshot)
    with pytest.raises(ConflictError, match="cannot be changed"):
        await rig.daemon.put_snapshot(snapshot.model_copy(update={"quiesce": False}))
    await until(rig, snapshot, SnapshotPhase.READY)
    asked = restore(snapshot.uid)
    rig.daemon._entries[machine.uid].desired = machine.model_copy(update={"restore": asked})
    with pytest.raises(ConflictError, match=f"restored to it or made from it: default/{machine.name}"):
        await remove(rig, machine, snapshot.uid)
    rig.daemon._entries[machine.uid].desired = machine
    await remove(rig, machine, snapshot.uid)
    for one in (machine, bare):
        await rig.remove(one)
    assert not left(rig)


async def test_a_guest_that_shall_stop_does_not_wait_for_its_capture(rig: Rig) -> None:
    machine = await make_counting(rig, "data")
    with slowly(rig):
        snapshot = await begin(rig, machine)
        asked = time.monotonic()
        await rig.put(machine, run=Run.STOPPED)
        await rig.until_phase(machine, Phase.STOPPED, 15)
    assert time.monotonic() - asked < 10
    report = await until(rig, snapshot, SnapshotPhase.READY)
    assert report.indications == (SnapshotIndication.OFFLINE,)
    await remove(rig, machine, snapshot.uid)
    await rig.remove(machine)
    assert not left(rig)


async def test_a_capture_that_is_removed_leaves_nothing(rig: Rig) -> None:
    machine = await make_counting(rig, "data")
    with slowly(rig):
        for seconds in (0.0, 0.0, 0.0, 0.4):  # before libvirt has begun, or just then, and afterwards
            snapshot = await begin(rig, machine)
            await asyncio.sleep(seconds)
            await asyncio.wait_for(rig.daemon.put_snapshot(snapshot.model_copy(update={"present": False})), 10)
            assert layers(rig, machine) == {"data.qcow2"}
            assert not left(rig)
    seen = len(at(rig.console(machine)))
    await rig.reports.until(lambda: len(at(rig.console(machine))) > seen + 5, 30, "the guest goes on")
    await rig.remove(machine)


async def test_a_capture_that_fills_its_pool_is_ended_and_gives_the_space_back(rig: Rig) -> None:
    with mounted(rig.state / "small", 300, node=rig.node) as place, slowly(rig) as hold:
        rig.pools.add("small", place, PoolRules())
        rig.pools.prepare()
        machine = new_machine(disks=(blank("data").model_copy(update={"pool": "small"}),), grace_period_seconds=0)
        await rig.put(machine)
        await rig.until_agent(machine)
        await rig.type(machine, COUNTER)
        snapshot = await begin(rig, machine)
        before = rig.pools.free_bytes("small")
        await asyncio.to_thread((place / "filler").write_bytes, bytes(before - 48 * MIB))
        report = await until(rig, snapshot, SnapshotPhase.FAILED)
        assert report.reason == "PoolFull", report.message
        assert "no room left" in report.message
        (place / "filler").unlink()
        assert rig.pools.free_bytes("small") >= before
        assert {path.name for path in (place / "disks" / machine.uid).iterdir()} == {"data.qcow2"}
        assert [path.name for path in (place / "snapshots").rglob("*") if path.is_file()] == ["snapshot.json"]
        seen = len(at(rig.console(machine)))
        await rig.reports.until(lambda: len(at(rig.console(machine))) > seen + 5, 30, "the guest goes on")
        (place / "filler").write_bytes(bytes(200 * MIB))
        hold.unlink()
        other = snapshot_of(machine)
        await rig.daemon.put_snapshot(other)
        report = await until(rig, other, SnapshotPhase.FAILED)
        assert "capture the disks alone" in report.message
        for one in (snapshot, other):
            await rig.daemon.put_snapshot(one.model_copy(update={"present": False}))
        await rig.remove(machine)
        assert not list((place / "snapshots").iterdir())
        rig.pools.drop("small")
