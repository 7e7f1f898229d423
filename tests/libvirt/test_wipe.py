"""Disks whose reclaim policy is Wipe go with their machine, whoever was killed meanwhile."""

import asyncio
import subprocess
from pathlib import Path

from machine_rig import Rig, new_machine
from virtfleet_api.machine import BlankSource, Machine, MachineDisk, Run
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine import ReclaimPolicy

MIB = 1 << 20


async def make(rig: Rig) -> Machine:
    """Return a machine that is off, with a disk that takes a moment to wipe and one that is kept."""
    wiped = MachineDisk(
        name="secret", pool="default", source=BlankSource(), size_bytes=1 << 30, reclaim_policy=ReclaimPolicy.WIPE
    )
    kept = wiped.model_copy(update={"name": "kept", "reclaim_policy": ReclaimPolicy.RETAIN})
    machine = new_machine(disks=(wiped, kept), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    path = next(disk.path for disk in rig.disks.read_disks(machine.uid) if disk.name == "secret")
    await asyncio.to_thread(fill, path)
    return machine


def fill(path: Path) -> None:
    command = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 400M", path]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def left(rig: Rig, machine: Machine) -> list[str]:
    return [path.name for path in (rig.pool / "disks" / machine.uid).iterdir()]


async def test_a_disk_is_wiped_with_its_machine_also_by_the_next_daemon(rig: Rig) -> None:
    machine = await make(rig)
    await rig.put(machine, run=Run.ABSENT)
    await rig.reports.until(lambda: rig.last(machine).reason == "Wiping", 20, "the wipe to be told")
    assert rig.last(machine).message.startswith("Overwriting disk secret: ")
    await rig.restart_daemon()
    report = await rig.until_phase(machine, Phase.ABSENT)
    assert [(disk.pool, disk.name) for disk in report.kept_disks] == [("default", "kept")]
    assert left(rig, machine) == ["kept.qcow2"]
    rig.disks.remove_disk(machine.uid, "default", "kept")


async def test_a_disk_is_wiped_of_a_machine_that_libvirt_has_lost(rig: Rig) -> None:
    machine = await make(rig)
    await rig.kill_daemon()
    rig.domain(machine).undefine()
    await rig.restart_daemon()
    report = await rig.daemon.put_machine(machine.model_copy(update={"run": Run.ABSENT}))
    assert report.phase is Phase.STOPPING
    await rig.until_phase(machine, Phase.ABSENT)
    assert left(rig, machine) == ["kept.qcow2"]
    rig.disks.remove_disk(machine.uid, "default", "kept")
