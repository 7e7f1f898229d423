"""Whatever is killed while disks are attached, detached and grown: all of it comes to its end, and no file leaks.

VIRTFLEET_CHAOS_SEED repeats a run.
"""

import asyncio
import os
import random
import signal

import libvirt
import pytest

from machine_rig import Rig, new_machine
from virtfleet_api.machine import BlankSource, Machine, MachineDisk, Run
from virtfleet_api.report import Phase

MIB = 1 << 20
SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))


def disk(name: str, mebibytes: int = 16) -> MachineDisk:
    return MachineDisk(name=name, pool="default", source=BlankSource(), size_bytes=mebibytes * MIB)


async def kill(rig: Rig, victim: str) -> None:
    if victim == "daemon":
        await rig.crash_daemon()
    else:
        (pid,) = rig.node.pids({"libvirtd": "libvirtd", "qemu": "qemu-system-x86"}[victim])
        os.kill(pid, signal.SIGKILL)


def attached(rig: Rig, machine: Machine) -> set[str]:
    """Return the disks that libvirt shows; none while it is on its way back."""
    try:
        rig.reconnect()
        xml = rig.domain(machine).XMLDesc()
    except libvirt.libvirtError:
        return set()
    return {name for name in ("root", "data", "logs") if f"<serial>{name}</serial>" in xml}


def files(rig: Rig) -> set[str]:
    return {str(path.relative_to(rig.pool / "disks")) for path in (rig.pool / "disks").rglob("*") if path.is_file()}


@pytest.mark.parametrize("victim", ["daemon", "libvirtd", "qemu"])
async def test_changes_of_disks_survive_whatever_is_killed(rig: Rig, victim: str) -> None:
    chance = random.Random(f"{SEED} {victim}")
    assert not files(rig)
    machine = await rig.put(new_machine(disks=(disk("root", 64), disk("data")), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    changed = machine.hardware.model_copy(update={"disks": (disk("root", 96), disk("logs"))})
    putting = asyncio.create_task(rig.put(machine, hardware=changed))
    await asyncio.sleep(chance.uniform(0, 0.4))
    await asyncio.gather(putting, return_exceptions=True)
    await kill(rig, victim)
    machine = machine.model_copy(update={"hardware": changed})
    await rig.put(machine)

    def settled() -> bool:
        report = rig.last(machine)
        if report is None or report.phase is not Phase.RUNNING or report.restart_required or report.held_disks:
            return False
        sizes = {shown.name: shown.capacity_bytes // MIB for shown in report.disks}
        return sizes == {"root": 96, "logs": 16} and attached(rig, machine) == {"root", "logs"}

    await rig.reports.until(settled, 90, f"the disks as the document has them (VIRTFLEET_CHAOS_SEED={SEED})")
    uid = machine.uid
    assert files(rig) == {f"{uid}/root.qcow2", f"{uid}/data.qcow2", f"{uid}/logs.qcow2"}
    await rig.put(machine, run=Run.ABSENT)
    await rig.until_phase(machine, Phase.ABSENT)
    assert not files(rig)
