"""Ten machines from one snapshot with memory, against ten that boot.

`pytest tests/scale -s` shows the figures, which docs/performance.md quotes.
"""

import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from captures import capture, restore
from machine_rig import Rig, new_machine
from source_machines import blank
from virtfleet_api.machine import Machine, MachineDisk, MachineInterface, SnapshotDiskSource
from virtfleet_dev.node import Node

pytestmark = [pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

COPIES = 10
PATIENCE_SECONDS = 300.0

Show = Callable[[str], None]


@pytest_asyncio.fixture(loop_scope="session")
async def rig(libvirt_node: Node) -> AsyncIterator[Rig]:
    made = Rig(libvirt_node)
    await made.start()
    yield made
    await made.tidy()
    await made.stop()


def machine(number: int, disk: MachineDisk, **more: object) -> Machine:
    card = MachineInterface(name="net0", mac=f"52:54:00:00:02:{number:02x}")
    return new_machine(disks=(disk,), interfaces=(card,), grace_period_seconds=0, **more)


async def answering(rig: Rig, machines: list[Machine]) -> float:
    """Put machines, and return the seconds until all answer through their agents, and have their own address."""
    began = time.monotonic()
    for one in machines:
        await rig.put(one)

    def all_answer() -> bool:
        reports = [rig.last(one) for one in machines]
        return all(r and r.guest and r.interfaces and r.interfaces[0].ip_addresses for r in reports)

    await rig.reports.until(all_answer, PATIENCE_SECONDS, "the answers")
    return time.monotonic() - began


async def test_ten_machines_go_on_from_one_memory(rig: Rig, show: Show) -> None:
    cold = [machine(number, blank("data")) for number in range(COPIES)]
    booted = await answering(rig, cold)
    for one in cold[1:]:
        await rig.remove(one)
    snapshot = await capture(rig, cold[0])
    made = SnapshotDiskSource(snapshot_uid=snapshot, name="data")
    disk = MachineDisk(name="data", pool="default", source=made)
    copies = [machine(COPIES + number, disk, restore=restore(snapshot)) for number in range(COPIES)]
    warm = await answering(rig, copies)
    for one in copies:
        report = rig.last(one)
        assert report is not None
        assert report.restore is not None
        assert (report.restore.warm, report.interfaces[0].mac) == (True, one.hardware.interfaces[0].mac)
        assert "READY" not in rig.console(one)
    assert warm < booted
    show(f"{COPIES} machines answer: {warm:.1f} s from memory, {booted:.1f} s by booting")
    for one in (cold[0], *copies):
        await rig.remove(one)
    rig.disks.snapshots.remove(snapshot)
