"""Whatever is killed while a machine is captured: it goes on, and the snapshot is captured anew."""

import asyncio
import os
import random

import pytest
from lxml import etree

from machine_rig import Rig, new_machine
from snapshots import begin, layers, left, remove, report_of, slowly, snapshot_of, until
from source_machines import blank, kill
from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import Phase
from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_api.vm_snapshot import SnapshotMode, SnapshotPhase

SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
LONGEST_SECONDS = 0.8
"""A machine of the rig is captured in half a second."""


@pytest.mark.parametrize("victim", ["libvirtd", "QEMU", "daemon"])
async def test_a_machine_goes_on_and_is_captured_anew(rig: Rig, victim: str) -> None:
    chance = random.Random(f"{SEED} {victim}")
    machine = new_machine(disks=(blank("one"), blank("two")), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    taken = []
    for round_number in range(2 if victim == "QEMU" else 3):  # a guest that ends often is left off for a while
        dead = rig.qemu_pids() if victim == "QEMU" else ()
        if round_number == 0:
            with slowly(rig):
                snapshot = await begin(rig, machine)
                await kill(rig, victim)
        else:
            snapshot = snapshot_of(machine, mode=chance.choice(list(SnapshotMode)))
            await rig.daemon.put_snapshot(snapshot)
            await asyncio.sleep(chance.uniform(0, LONGEST_SECONDS))  # the random moment is the test
            await kill(rig, victim)
        report, machine = await captured(rig, machine, snapshot)
        assert [disk.name for disk in report.disks] == ["one", "two"], SEED
        taken.append(snapshot)
        rig.reconnect()
        await rig.reports.until(
            lambda dead=dead: (pids := rig.qemu_pids()) and pids != dead, 60, f"the guest to be started again {SEED}"
        )
        await rig.until_phase(machine, Phase.RUNNING)
        await rig.until_agent(machine)
        xml = etree.fromstring(rig.domain(machine).XMLDesc())
        in_use = {source.get("file") for source in xml.iterfind("devices/disk[@device='disk']/source")}
        assert in_use == {str(disk.path) for disk in rig.disks.read_disks(machine.uid)}, SEED
    for snapshot in taken:
        await remove(rig, machine, snapshot.uid)
    # What is merged now is noted in a file that is written as a whole: for a moment it is partial.
    await rig.reports.until(lambda: not left(rig), 20, f"that nothing is left {SEED}", lambda: left(rig))
    await rig.put(machine, run=Run.STOPPED)
    await rig.reports.until(lambda: len(layers(rig, machine)) == 2, 60, f"its layers to be folded {SEED}")
    await rig.remove(machine)
    assert not layers(rig, machine)


async def captured(rig: Rig, machine: Machine, snapshot: MachineSnapshot) -> tuple[SnapshotReport, Machine]:
    """Wait until a machine is captured; a guest whose disks libvirtd does not know is started anew, as users are told.

    That is so when libvirtd was killed in the milliseconds in which QEMU switches the disks.
    """

    def unknown() -> bool:
        report = report_of(rig, snapshot)
        return report is not None and "while disks were switched" in report.message

    def done() -> bool:
        report = report_of(rig, snapshot)
        return report is not None and report.phase is SnapshotPhase.READY

    await rig.reports.until(lambda: done() or unknown(), 60, f"the capture {SEED}", lambda: report_of(rig, snapshot))
    if unknown():
        machine = await rig.put(machine, start_token=snapshot.uid)
    return await until(rig, snapshot, SnapshotPhase.READY), machine
