"""Machines put back to snapshots: disks and memory of one instant, in place and in new machines."""

import asyncio

from captures import capture, restore
from guest_shell import run
from machine_rig import Rig, new_machine
from source_machines import blank
from virtfleet_api.machine import Machine, MachineInterface, MachineRestore
from virtfleet_api.report import Phase, RestoreReport

COUNTER = (
    "(i=0; while :; do i=$((i+1)); echo $i >/tmp/n; printf %0512d $i | dd of=/dev/vda bs=512 seek=$i conv=notrunc "
    "oflag=direct 2>/dev/null; sleep 0.05; done) & echo $! >/tmp/pid"
)
"""Counts in memory, and writes each number into its own sector of the disk."""

CARD = MachineInterface(name="net0", mac="52:54:00:00:00:01")


async def make_counting(rig: Rig, **more: object) -> Machine:
    machine = await rig.put(new_machine(disks=(blank("data"),), interfaces=(CARD,), grace_period_seconds=0, **more))
    await rig.until_agent(machine)
    await rig.type(machine, COUNTER)
    await count(rig, machine)
    return machine


async def count(rig: Rig, machine: Machine) -> int:
    return int(await run(rig, machine, "cat /tmp/n") or 0)


async def until_restored(rig: Rig, machine: Machine, asked: MachineRestore, seconds: float = 60) -> RestoreReport:
    def report() -> RestoreReport | None:
        last = rig.last(machine)
        return last.restore if last and last.restore and last.restore.token == asked.token else None

    await rig.reports.until(lambda: (r := report()) and r.done, seconds, "the restore")
    found = report()
    assert found is not None
    return found


async def test_a_guest_goes_on_where_it_was(rig: Rig) -> None:
    machine = await make_counting(rig)
    snapshot = await capture(rig, machine)
    await asyncio.sleep(3)
    asked = restore(snapshot)
    before = await count(rig, machine)
    machine = await rig.put(machine, restore=asked)
    found = await until_restored(rig, machine, asked)
    assert (found.warm, found.message) == (True, "")
    await rig.until_phase(machine, Phase.RUNNING)
    after = await count(rig, machine)
    assert after < before
    await rig.remove(machine)
