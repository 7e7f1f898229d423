"""Snapshots that the rig's daemon captures, and captures that take long enough to be met while they go on."""

import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine_rig import Rig
from virtfleet_api.machine import Machine
from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_api.vm_snapshot import SnapshotPhase

_IOHELPER = Path("/usr/lib/libvirt/libvirt_iohelper")
"""What libvirt has write the memory: from its standard input to a file descriptor."""

_SCRIPT = """#!{python}
import os, sys, time
while os.path.exists("{hold}"):
    data = os.read(0, 1 << 16)
    if not data:
        sys.exit(0)
    while data:
        data = data[os.write(int(sys.argv[2]), data):]
    time.sleep(0.005)
os.execv("{real}", ["{real}", *sys.argv[1:]])
"""


def snapshot_of(machine: Machine, **change: object) -> MachineSnapshot:
    uid = str(uuid.uuid4())
    fields = {"uid": uid, "namespace": "default", "name": f"s-{uid[:8]}", "machine_uid": machine.uid, **change}
    return MachineSnapshot.model_validate(fields)


def report_of(rig: Rig, snapshot: MachineSnapshot) -> SnapshotReport | None:
    return rig.reports.snapshots.get(snapshot.uid)


async def until(rig: Rig, snapshot: MachineSnapshot, phase: SnapshotPhase, seconds: float = 60) -> SnapshotReport:
    ended = {SnapshotPhase.READY, SnapshotPhase.FAILED}
    await rig.reports.until(lambda: (r := report_of(rig, snapshot)) and r.phase in ended, seconds, "the capture")
    found = report_of(rig, snapshot)
    assert found is not None
    assert found.phase is phase, found
    return found


async def capture(rig: Rig, machine: Machine, **change: object) -> SnapshotReport:
    """Capture a machine, and wait until that is done."""
    snapshot = snapshot_of(machine, **change)
    await rig.daemon.put_snapshot(snapshot)
    return await until(rig, snapshot, SnapshotPhase.READY)


async def remove(rig: Rig, machine: Machine, uid: str) -> None:
    """Remove a snapshot by the document that the daemon keeps."""
    kept = rig.disks.snapshots.get(uid)
    assert kept is not None
    assert kept.document.machine_uid == machine.uid
    await rig.daemon.put_snapshot(kept.document.model_copy(update={"present": False}))


@contextmanager
def slowly(rig: Rig) -> Iterator[Path]:
    """Have memory images be written at some mebibytes per second, as long as the file is there that is given."""
    hold, script, real = (rig.state / name for name in ("slowly", "slow_iohelper", "iohelper"))
    shutil.copy(_IOHELPER, real)
    script.write_text(_SCRIPT.format(python=sys.executable, hold=hold, real=real))
    script.chmod(0o755)
    hold.touch()
    rig.node.run("mount", "--bind", script, _IOHELPER)  # type: ignore[attr-defined]  # the rig's node here is a real one
    try:
        yield hold
    finally:
        hold.unlink(missing_ok=True)
        rig.node.run("umount", _IOHELPER)  # type: ignore[attr-defined]


async def begin(rig: Rig, machine: Machine, **change: object) -> MachineSnapshot:
    """Have a machine captured, and return while that goes on."""
    snapshot = snapshot_of(machine, **change)
    await rig.daemon.put_snapshot(snapshot)
    await rig.reports.until(
        lambda: (r := report_of(rig, snapshot)) and r.phase is SnapshotPhase.CAPTURING, 20, "the capture to begin"
    )
    return snapshot


def at(console: str) -> list[int]:
    """Return the numbers that a guest has counted to."""
    return [int(number) for number in re.findall(r"AT (\d+)\r?\n", console)]


def layers(rig: Rig, machine: Machine) -> set[str]:
    """Return the files of a machine's disks."""
    folder = rig.pool / "disks" / machine.uid
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def left(rig: Rig) -> list[Path]:
    """Return what is left of snapshots, and what is not complete."""
    return [*(rig.pool / "snapshots").iterdir(), *(rig.pool / "disks").rglob("*.partial")]
