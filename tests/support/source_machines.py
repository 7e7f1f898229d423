"""Machines whose disks are copied, what is on these, and what is killed meanwhile."""

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

import libvirt
import libvirt_qemu

from machine_rig import Rig, new_machine
from virtfleet_api.machine import BlankSource, Machine, MachineDisk, Run
from virtfleet_api.report import Phase
from virtfleet_node.core.stored import StoredDisk

MIB = 1 << 20
SLOW = 500
"""Mebibytes that take a second to copy."""


def blank(name: str, mebibytes: int = 64) -> MachineDisk:
    return MachineDisk(name=name, pool="default", source=BlankSource(), size_bytes=mebibytes * MIB)


def stored(rig: Rig, machine: Machine) -> dict[str, StoredDisk]:
    return {disk.name: disk for disk in rig.disks.read_disks(machine.uid)}


def content(path: Path) -> bytes:
    """Return what a guest would read, made raw by qemu-img; the file must be in order and not in use."""
    subprocess.run(["qemu-img", "check", "-q", path], check=True)
    raw = path.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
    found = raw.read_bytes()
    raw.unlink()
    return found


def fill(path: Path, mebibytes: int, pattern: int = 7, at: int = 0) -> None:
    command = f"write -P {pattern} {at}M {mebibytes}M"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, path], check=True, stdout=subprocess.DEVNULL)


def holds(path: Path, mebibytes: int, pattern: int = 7) -> bool:
    command = ["qemu-io", "-f", "qcow2", "-c", f"read -P {pattern} 0 {mebibytes}M", path]
    done = subprocess.run(command, capture_output=True, check=True)
    return b"verification failed" not in done.stdout


async def make_off(rig: Rig, *disks: MachineDisk) -> Machine:
    """Return a machine that has run and is off."""
    machine = new_machine(disks=disks, grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    return machine


async def make_slow(rig: Rig) -> Machine:
    """Return a machine that runs and has a disk that takes some seconds to copy."""
    machine = await make_off(rig, blank("data", 1024))
    await asyncio.to_thread(fill, stored(rig, machine)["data"].path, SLOW)
    await rig.put(machine, run=Run.RUNNING)
    await rig.until_agent(machine)
    return machine.model_copy(update={"run": Run.RUNNING})


def frozen_mark(rig: Rig, machine: Machine) -> Path:
    return rig.state / "machines" / machine.uid / "frozen"


async def until_not_frozen(rig: Rig, machine: Machine) -> None:
    await rig.reports.until(
        lambda: not frozen_mark(rig, machine).exists(), 20, "the guest to go on", lambda: agent_says(rig, machine)
    )


def agent_says(rig: Rig, machine: Machine) -> str:
    """Return how the guest's agent answers the question whether the guest is frozen."""
    try:
        return str(libvirt_qemu.qemuAgentCommand(rig.domain(machine), '{"execute":"guest-fsfreeze-status"}', 5, 0))
    except libvirt.libvirtError as error:
        return str(error)


def leftovers(rig: Rig) -> list[str]:
    """Return the files that a copy leaves when it is killed, and those that tell of guests that may be frozen."""
    found = (*rig.pool.rglob("*.partial*"), *rig.state.rglob("frozen"))
    return [str(path.relative_to(rig.state)) for path in found]


async def until_nothing_is_left(rig: Rig, machine: Machine) -> None:
    await rig.reports.until(
        lambda: not leftovers(rig),
        30,
        "that nothing is left, and the guest not frozen",
        lambda: (leftovers(rig), agent_says(rig, machine), rig.last(machine)),
    )


async def kill(rig: Rig, victim: str) -> None:
    if victim == "daemon":
        await rig.crash_daemon()
        return
    pids = rig.node.pids("libvirtd" if victim == "libvirtd" else "qemu-system-x86")
    assert pids, f"no {victim} runs"
    for pid in pids:  # a process that libvirtd has just begun is called like it
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
