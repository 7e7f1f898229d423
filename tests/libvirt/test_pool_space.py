"""Space of pools, with real guests: disks take what is written, give back what is discarded, outlive a full pool."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from guest_shell import begin, finish, run
from machine_rig import Rig, new_machine
from small_file_system import mounted
from virtfleet_api.machine import BlankSource, Machine, MachineDisk
from virtfleet_api.report import Phase
from virtfleet_node.core.pool_rules import PoolRules

MIB = 1 << 20
DATA_MIB = 24


def disk(pool: str = "default", mebibytes: int = 256) -> MachineDisk:
    return MachineDisk(name="root", pool=pool, source=BlankSource(), size_bytes=mebibytes * MIB)


async def started(rig: Rig, pool: str = "default") -> Machine:
    machine = new_machine(disks=(disk(pool),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_console(machine, "/ # ")
    return machine


def told(rig: Rig, machine: Machine) -> int:
    """Return the MiB that the daemon last said the disk takes."""
    report = rig.last(machine)
    return report.disks[0].allocated_bytes // MIB if report and report.disks else 0


def fill(path: Path) -> None:
    """Write a file until there is no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\1" * 4096):
            pass


@pytest.fixture
def small(rig: Rig) -> Iterator[Path]:
    """A pool of 64 MiB."""
    with mounted(rig.state / "small", 64, node=rig.node) as path:
        for name in ("disks", "images"):
            (path / name).mkdir()
        rig.pools.add("small", path, PoolRules(watermark="100%"))
        rig.pools.refresh()
        yield path
        rig.pools.drop("small")


async def test_what_a_guest_writes_is_told_and_what_it_discards_comes_back(rig: Rig) -> None:
    machine = await started(rig)
    assert told(rig, machine) == 0
    await run(rig, machine, "dd if=/dev/urandom of=/dev/vda bs=1M count=32 conv=fsync 2>&1 | tail -1")
    await rig.reports.until(lambda: 32 <= told(rig, machine) < 36, 30, "the growth of the disk")
    await run(rig, machine, "blkdiscard /dev/vda")
    await rig.reports.until(lambda: told(rig, machine) < 2, 30, "the space of the disk")
    (before,) = (pool.committed_bytes for pool in rig.pools.reports())
    await rig.remove(machine)
    assert not (rig.pool / "disks" / machine.uid).exists()
    (after,) = (pool.committed_bytes for pool in rig.pools.reports())
    assert before - after == 256 * MIB


async def test_a_guest_in_a_full_pool_waits_and_goes_on_with_its_data_whole(rig: Rig, small: Path) -> None:
    bystander = await started(rig)
    machine = await started(rig, "small")
    ballast = small / "ballast"
    ballast.write_bytes(b"\1" * (50 * MIB))
    wanted = await run(
        rig, machine, f"dd if=/dev/urandom of=/tmp/data bs=1M count={DATA_MIB} 2>/dev/null; sha256sum /tmp/data"
    )
    written = await begin(rig, machine, "dd if=/tmp/data of=/dev/vda bs=1M conv=fsync 2>/dev/null; echo done")
    report = await rig.until_phase(machine, Phase.PAUSED)
    assert report.reason == "PoolFull"
    assert report.message.startswith("Pool small of the node is full")
    assert (
        await run(rig, bystander, "dd if=/dev/zero of=/dev/vda bs=1M count=8 conv=fsync 2>/dev/null; echo fine")
        == "fine"
    )
    await asyncio.to_thread(fill, small / "rest")  # which the guest's next MiB is too large for, and a new disk is not
    late = new_machine(disks=(disk("small"),), grace_period_seconds=0)
    await rig.put(late)
    refused = await rig.until_phase(late, Phase.PROVISIONING)
    await rig.reports.until(lambda: (r := rig.last(late)) and r.reason == "PoolFull", 20, "the refusal")
    assert refused.phase is Phase.PROVISIONING
    last = rig.last(machine)
    assert last is not None
    still = (last.phase, last.reason, last.message)
    assert still == (report.phase, report.reason, report.message), "it stays as it is while there is no room"

    await rig.restart_daemon()
    ballast.unlink()
    await rig.until_phase(machine, Phase.RUNNING, seconds=40)
    assert await finish(rig, machine, written) == "done"
    found = await run(rig, machine, f"dd if=/dev/vda bs=1M count={DATA_MIB} iflag=direct 2>/dev/null | sha256sum")
    assert found.split()[0] == wanted.split()[0]
    await rig.until_phase(late, Phase.RUNNING)
    assert Phase.PAUSED not in rig.phases(bystander)
    for one in (machine, late, bystander):
        await rig.remove(one)
