"""Limits of disks, measured by the guest: at its start, changed while it runs, cleared, and shared by a group."""

import itertools
import re

import pytest

from machine_rig import Rig, new_machine
from virtfleet_api.machine import BlankSource, IoLimits, Machine, MachineDisk
from virtfleet_api.report import Phase

pytestmark = pytest.mark.alone

MIB = 1 << 20
TOLERANCE = 0.1
ATTEMPTS = 3
NUMBERS = itertools.count(1)
PROMPT = re.compile(rb"/ # (\x1b\[6n)?\Z")


def disk(name: str, limits: IoLimits | None) -> MachineDisk:
    return MachineDisk(name=name, pool="default", source=BlankSource(), size_bytes=256 * MIB, limits=limits)


async def started(rig: Rig, *disks: MachineDisk) -> Machine:
    machine = new_machine(disks=disks, grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_console(machine, "/ # ")
    return machine


async def seconds_of(rig: Rig, machine: Machine, command: str) -> float:
    """Return how long a command takes in the guest, by its own clock."""
    mark = next(NUMBERS)
    now = "cut -d' ' -f1 /proc/uptime"
    log = rig.state / "machines" / machine.uid / "console.log"
    # What is typed before the shell asks is lost: it empties its input when it begins to edit a line.
    await rig.reports.until(lambda: PROMPT.search(log.read_bytes()), 20, "the prompt")
    await rig.type(machine, f"a=$({now}); {command}; b=$({now}); echo TOOK$((0)){mark} $a $b;")
    await rig.until_console(machine, f"TOOK0{mark} ")
    found = re.search(rf"TOOK0{mark} ([0-9.]+) ([0-9.]+)", log.read_text(errors="replace"))
    assert found
    return float(found[2]) - float(found[1])


def read(device: str, mebibytes: int) -> str:
    return f"dd if=/dev/{device} of=/dev/null bs=1M count={mebibytes} iflag=direct 2>/dev/null"


async def change(rig: Rig, machine: Machine, *disks: MachineDisk) -> Machine:
    """Put other disks, and wait until the running domain shows them."""
    before = rig.domain(machine).XMLDesc()
    changed = await rig.put(machine, hardware=machine.hardware.model_copy(update={"disks": disks}))
    await rig.reports.until(lambda: rig.domain(machine).XMLDesc() != before, 20, "the change")
    return changed


async def takes(rig: Rig, machine: Machine, command: str, wanted: float) -> None:
    """See that a command never takes less, and no more in one of three times: other work of the host may delay it."""
    took: list[float] = []
    while not took or took[-1] > wanted * (1 + TOLERANCE):
        assert len(took) < ATTEMPTS, took
        took.append(await seconds_of(rig, machine, command))
        assert took[-1] >= wanted * (1 - TOLERANCE), took


async def test_bytes_a_second_are_held_changed_and_cleared_while_the_guest_runs(rig: Rig) -> None:
    machine = await started(rig, disk("root", IoLimits(total_bytes_per_second=10 * MIB)))
    (qemu,) = rig.qemu_pids()
    await takes(rig, machine, read("vda", 40), 4.0)
    machine = await change(rig, machine, disk("root", IoLimits(read_bytes_per_second=20 * MIB)))
    await takes(rig, machine, read("vda", 80), 4.0)
    machine = await change(rig, machine, disk("root", None))
    assert await seconds_of(rig, machine, read("vda", 80)) < 3.0
    machine = await change(rig, machine, disk("root", IoLimits(total_bytes_per_second=10 * MIB)))
    await takes(rig, machine, read("vda", 40), 4.0)
    assert rig.qemu_pids() == (qemu,)
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert report.restart_required == ()
    await rig.remove(machine)


async def test_requests_a_second_are_held_and_bursts_pass(rig: Rig) -> None:
    machine = await started(rig, disk("root", IoLimits(total_iops=200)))
    requests = "dd if=/dev/vda of=/dev/null bs=4k count=800 iflag=direct 2>/dev/null"
    await takes(rig, machine, requests, 4.0)
    burst = IoLimits(total_iops=200, total_iops_burst=2000, burst_seconds=10)
    machine = await change(rig, machine, disk("root", burst))
    assert await seconds_of(rig, machine, requests) < 3.0
    await rig.remove(machine)


async def test_a_group_shares_its_limit_and_can_be_left(rig: Rig) -> None:
    shared = IoLimits(total_bytes_per_second=10 * MIB, group="slow")
    machine = await started(rig, disk("root", shared), disk("data", shared))
    both = f"{read('vda', 20)} & {read('vdb', 20)}; wait"
    await takes(rig, machine, both, 4.0)
    alone = IoLimits(total_bytes_per_second=10 * MIB)
    machine = await change(rig, machine, disk("root", alone), disk("data", shared))
    await takes(rig, machine, both, 2.0)
    await rig.remove(machine)
