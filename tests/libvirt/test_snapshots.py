"""Machines captured while they run and while they are off, whatever is killed meanwhile, and what is left afterwards."""

import asyncio
import re
import subprocess
import uuid
from pathlib import Path

from captures import restore
from machine_rig import Rig, new_machine
from source_machines import blank, stored
from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import Phase
from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_api.vm_snapshot import SnapshotIndication, SnapshotMode, SnapshotPhase

COUNTER = "(i=0; while :; do i=$((i+1)); echo AT $i >/dev/console; sleep 0.1; done) &"


def snapshot_of(machine: Machine, **change: object) -> MachineSnapshot:
    uid = str(uuid.uuid4())
    fields = {"uid": uid, "namespace": "default", "name": f"s-{uid[:8]}", "machine_uid": machine.uid, **change}
    return MachineSnapshot.model_validate(fields)


async def until(rig: Rig, snapshot: MachineSnapshot, phase: SnapshotPhase, seconds: float = 60) -> SnapshotReport:
    reports = rig.reports.snapshots
    await rig.reports.until(
        lambda: (r := reports.get(snapshot.uid)) and r.phase is phase, seconds, f"{phase} {reports.get(snapshot.uid)}"
    )
    return reports[snapshot.uid]


async def capture(rig: Rig, machine: Machine, **change: object) -> SnapshotReport:
    snapshot = snapshot_of(machine, **change)
    await rig.daemon.put_snapshot(snapshot)
    return await until(rig, snapshot, SnapshotPhase.READY)


def at(console: str) -> list[int]:
    return [int(number) for number in re.findall(r"AT (\d+)\r?\n", console)]


def layers(rig: Rig, machine: Machine) -> set[str]:
    return {path.name for path in (rig.pool / "disks" / machine.uid).iterdir()}


async def test_a_running_machine_is_captured_with_its_memory_and_goes_on(rig: Rig) -> None:
    machine = new_machine(disks=(blank("one"), blank("two")), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    await rig.type(machine, COUNTER)
    await rig.until_console(machine, "AT ", 5)
    report = await capture(rig, machine, exclude_disks=("two",))
    print(report)
    assert report.indications == (SnapshotIndication.ONLINE, SnapshotIndication.MEMORY)
    assert [disk.name for disk in report.disks] == ["one"]
    assert report.pause_milliseconds
    assert layers(rig, machine) == {"one.qcow2", "one.1.qcow2", "two.qcow2"}
    seen = len(at(rig.console(machine)))
    await rig.reports.until(lambda: len(at(rig.console(machine))) > seen + 5, 30, "the guest goes on")
    numbers = at(rig.console(machine))
    assert numbers == list(range(1, len(numbers) + 1))
    await rig.remove(machine)
