"""Machines put back to snapshots in place: disks and memory of one instant, whatever is killed meanwhile."""

import asyncio
import contextlib
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from captures import capture, restore
from machine_rig import Rig, new_machine
from source_machines import blank, content, kill, stored
from virtfleet_api.machine import Machine, MachineInterface, MachineRestore, Run
from virtfleet_api.report import Phase, RestoreReport
from virtfleet_node.core.save_image import FIXED_BYTES, head_bytes

SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))

COUNTER = (
    "echo A >/tmp/tag; (i=0; while :; do i=$((i+1)); for d in a b; do printf '%511d%s' $i $(cat /tmp/tag) | "
    "dd of=/dev/vd$d bs=512 seek=$i conv=notrunc oflag=direct 2>/dev/null; done; "
    '[ -f /tmp/loud ] && echo "AT $i" >/dev/console; sleep 0.05; done) & echo $! >/tmp/pid'
)
"""Counts in memory, and writes each number with a tag into its own sector of both disks."""

COUNTING = "until dd if=/dev/vdb bs=512 skip=2 count=1 iflag=direct 2>/dev/null | grep -q A; do sleep 0.1; done"

SECTOR = 512


async def make_counting(rig: Rig) -> Machine:
    card = MachineInterface(name="net0", mac="52:54:00:00:00:01")
    machine = new_machine(disks=(blank("one"), blank("two")), interfaces=(card,), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    await rig.type(machine, COUNTER)
    await rig.type(machine, f"{COUNTING}; echo COUNT$((0))ING", 2)
    await rig.until_console(machine, "COUNT0ING")
    return machine


async def until_restored(rig: Rig, machine: Machine, asked: MachineRestore, seconds: float = 60) -> RestoreReport:
    def report() -> RestoreReport | None:
        last = rig.last(machine)
        return last.restore if last and last.restore and last.restore.token == asked.token else None

    await rig.reports.until(lambda: (r := report()) and r.done, seconds, "the restore")
    found = report()
    assert found is not None
    return found


def shared(path: Path) -> bytes:
    """Return the content of a disk that a paused guest has open."""
    raw = path.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, raw], check=True)
    found = raw.read_bytes()
    raw.unlink()
    return found


def entries(disk: bytes) -> list[str]:
    """Return the tags of the numbers on a disk; they are whole, in order, and nothing is behind them."""
    found = disk[SECTOR:].rstrip(b"\0").decode()
    assert len(found) % SECTOR == 0
    sectors = [found[at : at + SECTOR] for at in range(0, len(found), SECTOR)]
    assert [int(sector[:-1]) for sector in sectors] == list(range(1, len(sectors) + 1))
    return [sector[-1] for sector in sectors]


def at(console: str) -> list[int]:
    return [int(number) for number in re.findall(r"AT (\d+)\r?\n", console)]


def layers(rig: Rig, machine: Machine) -> set[str]:
    return {path.name for path in (rig.pool / "disks" / machine.uid).iterdir()}


async def test_a_machine_goes_on_where_it_was_with_memory_and_disks_of_one_instant(rig: Rig) -> None:
    machine = await make_counting(rig)
    await rig.type(machine, "touch /tmp/loud")
    await rig.reports.until(lambda: at(rig.console(machine)), 10, "numbers")
    before = stored(rig, machine)
    snapshot = await capture(rig, machine)
    frozen = {name: await asyncio.to_thread(shared, disk.path) for name, disk in before.items()}
    last = len(entries(frozen["two"]))
    await rig.reports.until(lambda: at(rig.console(machine))[-1] > last + 10, 30, "the guest goes on")

    asked = restore(snapshot)
    machine = await rig.put(machine, restore=asked, run=Run.PAUSED)
    found = await until_restored(rig, machine, asked)
    assert (found.warm, found.message) == (True, "")
    report = await rig.until_phase(machine, Phase.PAUSED)
    assert (report.restart_required, report.restarts, report.held_interfaces) == ((), 0, ())
    now = stored(rig, machine)
    assert {name: shared(disk.path) for name, disk in now.items()} == frozen
    assert layers(rig, machine) == {"one.qcow2", "two.qcow2", "one.2.qcow2", "two.2.qcow2"}, "the disks before are gone"
    length = len(rig.console(machine))
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.reports.until(lambda: at(rig.console(machine)[length:]), 30, "the guest goes on")
    assert at(rig.console(machine)[length:])[0] - last in {0, 1}
    assert rig.console(machine).count("READY") == 1
    await rig.reports.until(
        lambda: (
            not rig.domain(machine).metadata(2, "https://virtfleet.io/machine/v1alpha1", 2).count('"clockBehind":true')
        ),
        30,
        "the clock",
    )

    for number in (3, 4):  # again and again, and the last time while it is off
        asked = restore(snapshot)
        machine = await rig.put(machine, restore=asked, run=Run.STOPPED if number == 4 else Run.RUNNING)
        assert (await until_restored(rig, machine, asked)).warm is (number == 3)
        assert layers(rig, machine) == {"one.qcow2", "two.qcow2", f"one.{number}.qcow2", f"two.{number}.qcow2"}
    await rig.until_phase(machine, Phase.STOPPED)
    assert {name: content(disk.path) for name, disk in stored(rig, machine).items()} == frozen

    asked = restore(snapshot, memory=False)
    machine = await rig.put(machine, restore=asked, run=Run.RUNNING)
    assert not (await until_restored(rig, machine, asked)).warm
    await rig.until_console(machine, "READY", 2)
    assert {name: shared(disk.path) for name, disk in stored(rig, machine).items()} == frozen
    assert await rig.daemon.put_machine(machine)
    await rig.remove(machine)


async def test_what_cannot_be_restored_says_why_and_the_guest_runs_on(rig: Rig) -> None:
    machine = await make_counting(rig)
    (qemu,) = rig.qemu_pids()
    snapshot = await capture(rig, machine)
    image = rig.disks.snapshots.memory_file(snapshot)
    whole = image.read_bytes()

    async def refused(asked: MachineRestore, **change: object) -> str:
        await rig.put(machine, restore=asked, **change)
        found = await until_restored(rig, machine, asked)
        assert not found.warm
        return found.message

    unknown = "99999999-0000-4000-8000-000000000000"
    assert "This node has no snapshot 9999" in await refused(restore(unknown))
    image.write_bytes(b"LibvirtQemudPart" + whole[16:])
    assert "cannot be read: it is none of libvirt's, or was never completed" in await refused(restore(snapshot))
    hardware = machine.hardware.model_copy(update={"disks": machine.hardware.disks[:1]})
    assert "Disk two of the snapshot is not a disk of the machine any more" in await refused(
        restore(snapshot), hardware=hardware
    )
    other = await rig.put(new_machine(disks=(blank("one"), blank("two")), run=Run.STOPPED))
    asked = restore(snapshot)
    await rig.put(other, restore=asked)
    assert "is another machine's" in (await until_restored(rig, other, asked)).message
    assert rig.qemu_pids() == (qemu,), "a restore that was refused has switched the guest off"

    # Only QEMU can tell that this one is of no use.
    head = head_bytes(whole[:FIXED_BYTES])
    image.write_bytes(whole[:head] + bytes(len(whole) - head))
    machine = await rig.put(machine)
    await rig.reports.until(lambda: len(layers(rig, machine)) == 4, 30, "the disks")
    flush = "for d in a b; do dd if=/dev/vd$d of=/dev/vd$d count=1 conv=notrunc,fsync 2>/dev/null; done"
    await rig.type(machine, f"echo B >/tmp/tag; kill $(cat /tmp/pid); sleep 1; {flush}; echo STOP$((0))PED")
    await rig.until_console(machine, "STOP0PED")
    before = {name: shared(disk.path) for name, disk in stored(rig, machine).items()}
    message = await refused(restore(snapshot))
    assert "The guest could not be started from memory:" in message
    await rig.until_console(machine, "READY", 2)
    assert {name: shared(disk.path) for name, disk in stored(rig, machine).items()} == before
    assert layers(rig, machine) == {"one.qcow2", "two.qcow2", "one.1.qcow2", "two.1.qcow2"}
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert report.restarts == 0
    for one in (machine, other):
        await rig.remove(one)


@pytest.mark.parametrize("victim", ["daemon", "libvirtd", "qemu"])
async def test_a_restore_that_is_cut_off_is_done_or_not_and_never_between(rig: Rig, victim: str) -> None:
    chance = random.Random(f"{SEED} {victim}")
    machine = await make_counting(rig)
    snapshot = await capture(rig, machine)
    for _ in range(2):
        tagged = rig.console(machine).count("TAG0GED") + 1
        await rig.type(machine, "echo B >/tmp/tag; sleep 0.5; echo TAG$((0))GED")
        await rig.until_console(machine, "TAG0GED", tagged)
        asked = restore(snapshot)
        machine = await rig.put(machine, restore=asked)
        await asyncio.sleep(chance.random() * 1.2)
        with contextlib.suppress(AssertionError):  # there is no QEMU just now
            await kill(rig, victim)
        await rig.reports.until(lambda: rig.hypervisor.connected, 30, "libvirtd to be back")
        await asyncio.sleep(0.5)  # what is told of the guest before may be of the one that was killed
        found = await until_restored(rig, machine, asked, 120)
        rig.reconnect()
        await rig.until_phase(machine, Phase.RUNNING)
        await rig.until_agent(machine)
        tags = [set(entries(shared(disk.path))) for disk in stored(rig, machine).values()]
        assert tags == [{"A", "B"} if found.message else {"A"}] * 2, f"seed {SEED}: {found}"
        assert len(layers(rig, machine)) == 4, f"seed {SEED}: {layers(rig, machine)}"
    await rig.remove(machine)
