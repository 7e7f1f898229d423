"""A disk is made independent of its image by its document: under a running guest, and of a machine that is off."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from machine_rig import Rig, new_machine
from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import ExistingSource, ImageDiskSource, Machine, MachineDisk, Run
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.stored import ImageFiles, StoredDisk

MIB = 1 << 20
LARGE = "cccccccc-0000-4000-8000-000000000000"
FILLED = 700


@pytest.fixture(scope="module")
def image(rig: Rig) -> Path:
    """An image that takes a few seconds to copy."""
    path = rig.pool / "images" / LARGE / "disk"
    path.parent.mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", path, "1G"], check=True)
    subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -P 7 0 {FILLED}M", path], check=True, capture_output=True)
    rig.images.known[LARGE] = ImageFiles(path, ImageFormat.RAW, 1 << 30)
    return path


def linked(image_uid: str = LARGE) -> MachineDisk:
    return MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=image_uid))


def stored(rig: Rig, machine: Machine) -> StoredDisk:
    (disk,) = rig.disks.read_disks(machine.uid)
    return disk


async def run(rig: Rig) -> Machine:
    machine = new_machine(disks=(linked(),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    return machine


async def put_full(rig: Rig, machine: Machine, **change: object) -> Machine:
    full = linked().model_copy(update={"source": ExistingSource(clone=Clone.FULL)})
    return await rig.put(machine, hardware=machine.hardware.model_copy(update={"disks": (full,)}), **change)


async def until_flat(rig: Rig, machine: Machine) -> None:
    await rig.reports.until(
        lambda: (r := rig.last(machine)) and r.disks and not (r.disks[0].backing_image_uid or r.disks[0].message),
        90,
        "the disk to be independent",
    )


async def until_percent(rig: Rig, machine: Machine) -> None:
    await rig.reports.until(lambda: "independent" in rig.last(machine).disks[0].message, 20, "progress")


def check_whole(rig: Rig, machine: Machine) -> None:
    """Check that the disk holds all of the image, alone."""
    disk = stored(rig, machine)
    assert disk.backing_image_uid is None
    subprocess.run(["qemu-img", "check", "-q", disk.path], check=True)
    command = f"read -P 7 1M {FILLED - 1}M"
    done = subprocess.run(["qemu-io", "-r", "-f", "qcow2", "-c", command, disk.path], capture_output=True, check=True)
    assert b"verification failed" not in done.stdout
    assert not list(disk.path.parent.glob("*.partial"))


@pytest.mark.parametrize("victim", ["daemon", "libvirtd"])
@pytest.mark.usefixtures("image")
async def test_a_running_guests_disk_is_made_independent(rig: Rig, victim: str) -> None:
    machine = await run(rig)
    qemu = rig.qemu_pids()
    machine = await put_full(rig, machine)
    await until_percent(rig, machine)
    await rig.type(machine, "echo changed | dd of=/dev/vda bs=512 conv=notrunc,fsync && echo WRIT$((0))TEN")
    await rig.until_console(machine, "WRIT0TEN")
    if victim == "daemon":
        await rig.restart_daemon()
    elif victim == "libvirtd":
        (pid,) = rig.node.pids("libvirtd")
        os.kill(pid, signal.SIGKILL)
    await until_flat(rig, machine)
    rig.reconnect()
    report = rig.last(machine)
    assert (report.phase, report.restart_required, rig.qemu_pids()) == (Phase.RUNNING, (), qemu)
    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    check_whole(rig, machine)
    await rig.remove(machine)


@pytest.mark.usefixtures("image")
async def test_a_start_does_not_wait_for_a_disk_that_is_made_independent(rig: Rig) -> None:
    machine = await run(rig)
    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    machine = await put_full(rig, machine)
    await until_percent(rig, machine)
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING, 10)
    machine = await rig.put(machine, run=Run.STOPPED)
    await until_flat(rig, machine)
    await rig.until_phase(machine, Phase.STOPPED)
    check_whole(rig, machine)
    await rig.remove(machine)
