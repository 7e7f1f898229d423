"""A disk that a machine has left behind is given to a guest that runs, with all that is on it."""

import subprocess
from pathlib import Path

import pytest
from lxml import etree

from machine_rig import Rig, new_machine
from virtfleet_api.machine import BlankSource, ExistingSource, Machine, MachineDisk, RetainedSource, Run
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine import ReclaimPolicy

MIB = 1 << 20


def io(path: Path, command: str, *options: str) -> str:
    done = subprocess.run(["qemu-io", *options, "-f", "qcow2", "-c", command, path], check=True, capture_output=True)
    return done.stdout.decode()


def serials(rig: Rig, machine: Machine) -> list[str]:
    xml = etree.fromstring(rig.domain(machine).XMLDesc())
    return [found.findtext("serial", "") for found in xml.findall("devices/disk[@device='disk']")]


async def leave(rig: Rig) -> Machine:
    """Leave a disk with a pattern behind, as the machine that it was made for."""
    source, keep = BlankSource(), ReclaimPolicy.RETAIN
    disk = MachineDisk(name="data", pool="default", source=source, size_bytes=16 * MIB, reclaim_policy=keep)
    former = new_machine(disks=(disk,))
    await rig.put(former, run=Run.PAUSED)
    await rig.until_phase(former, Phase.PAUSED)
    report = await rig.remove(former)
    (left,) = report.kept_disks
    assert (left.pool, left.name, left.capacity_bytes) == ("default", "data", 16 * MIB)
    io(rig.pool / "disks" / former.uid / "data.qcow2", "write -P 7 0 1M")
    return former


@pytest.mark.parametrize("killed", [False, True], ids=["at once", "by the next daemon"])
async def test_a_running_guest_gets_a_disk_that_was_left_behind(rig: Rig, killed: bool) -> None:  # noqa: FBT001 -- a case
    former = await leave(rig)
    machine = await rig.put(new_machine())
    await rig.until_console(machine, "READY")
    taken = MachineDisk(name="mine", pool="default", source=RetainedSource(machine_uid=former.uid, name="data"))
    machine = await rig.put(machine, hardware=machine.hardware.model_copy(update={"disks": (taken,)}))
    if killed:
        await rig.kill_daemon()
        await rig.restart_daemon()
    await rig.reports.until(lambda: "mine" in serials(rig, machine), 30, "the disk")
    assert not (rig.pool / "disks" / former.uid).exists()
    assert "Pattern verification failed" not in io(
        rig.pool / "disks" / machine.uid / "mine.qcow2", "read -P 7 0 1M", "-r", "-U"
    )

    # The operator asks what is left of the former machine, and tells the new one that the disk is its own.
    report = await rig.daemon.put_machine(former.model_copy(update={"run": Run.ABSENT}))
    assert (report.phase, report.kept_disks) == (Phase.ABSENT, ())
    own = taken.model_copy(update={"source": ExistingSource()})
    machine = await rig.put(machine, hardware=machine.hardware.model_copy(update={"disks": (own,)}))
    assert rig.last(machine).restart_required == ()
    await rig.remove(machine)
    assert rig.disks.owners() == frozenset()


async def test_a_disk_that_was_left_behind_is_told_of_until_it_is_removed(rig: Rig) -> None:
    former = (await leave(rig)).model_copy(update={"run": Run.ABSENT})
    told = await rig.daemon.put_machine(former)
    assert [disk.name for disk in told.kept_disks] == ["data"]
    (disk,) = former.hardware.disks
    doomed = disk.model_copy(update={"reclaim_policy": ReclaimPolicy.DELETE, "source": ExistingSource()})
    hardware = former.hardware.model_copy(update={"disks": (doomed,)})
    removed = await rig.daemon.put_machine(former.model_copy(update={"hardware": hardware}))
    assert (removed.phase, removed.kept_disks) == (Phase.ABSENT, ())
    assert rig.disks.owners() == frozenset()
