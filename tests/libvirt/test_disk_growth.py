"""Disks grow by their document: under a running guest, and before the next start of one that is off."""

from machine_rig import Rig, new_machine
from virtfleet_api.machine import BlankSource, Machine, MachineDisk, Run
from virtfleet_api.report import Phase

MIB = 1 << 20
SECTOR = 512


def disk(mebibytes: int) -> MachineDisk:
    return MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=mebibytes * MIB)


async def put_size(rig: Rig, machine: Machine, mebibytes: int, **change: object) -> Machine:
    hardware = machine.hardware.model_copy(update={"disks": (disk(mebibytes),)})
    return await rig.put(machine, hardware=hardware, **change)


def capacity(rig: Rig, machine: Machine) -> int:
    (stored,) = rig.disks.read_disks(machine.uid)
    return stored.capacity_bytes // MIB


async def test_a_disk_grows_under_a_running_guest_and_never_shrinks(rig: Rig) -> None:
    machine = new_machine(disks=(disk(64),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_console(machine, "/ # ")
    (qemu,) = rig.qemu_pids()
    machine = await put_size(rig, machine, 100)
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.disks[0].capacity_bytes == 100 * MIB, 20, "growth")
    await rig.type(machine, "echo SECT$((0))ORS $(cat /sys/block/vda/size)")
    await rig.until_console(machine, f"SECT0ORS {100 * MIB // SECTOR}")
    machine = await put_size(rig, machine, 80)
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert (capacity(rig, machine), report.restart_required) == (100, ())
    assert rig.qemu_pids() == (qemu,)
    await rig.remove(machine)


async def test_a_disk_that_no_guest_uses_grows_at_the_next_start(rig: Rig) -> None:
    machine = new_machine(disks=(disk(64),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    machine = await put_size(rig, machine, 100, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING)
    assert capacity(rig, machine) == 100
    await rig.remove(machine)
