"""Two NUMA cells with two CPUs each: where machines are started, what of it the kernel does, and what moves."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from machine_rig import KERNEL, Rig, new_machine
from qemu_memory import Mapping, mappings
from qemu_threads import main_thread, vcpu_threads
from this_host import READY
from virtfleet_api.machine import Machine, MachineKernel
from virtfleet_api.report import MachineReport, Phase
from virtfleet_node.core.numa.load import CpuTimes
from virtfleet_node.core.numa.rebalance import Move

CPUS = {0: frozenset((0, 1)), 1: frozenset((2, 3))}
MIB = 1 << 20
PAGES = Path("/sys/devices/system/node/node1/hugepages/hugepages-2048kB")
FASTER = 30
"""How much faster than the clock the test has the daemon wait."""


def toucher(words: str = "+touch", **hardware: object) -> Machine:
    """Return a machine whose guest writes to all of its memory."""
    kernel = MachineKernel(image_uid=KERNEL, cmdline=words)
    return new_machine(grace_period_seconds=0, kernel=kernel, **{"memory_bytes": 64 * MIB, **hardware})


async def started(rig: Rig, machine: Machine) -> MachineReport:
    await rig.put(machine)
    report = await rig.until_phase(machine, Phase.RUNNING, 120)
    await rig.until_console(machine, READY, seconds=120)
    return report


def pid_of(machine: Machine) -> int:
    return int(Path(f"/run/libvirt/qemu/vf-{machine.uid}.pid").read_text())


def memory_of(machine: Machine) -> Mapping:
    return mappings(pid_of(machine))[0]


def cell_of(rig: Rig, machine: Machine) -> int:
    report = rig.last(machine)
    assert report is not None
    assert report.numa is not None
    assert report.numa.policy == "Bound"
    (cell,) = report.numa.cells
    return cell


def lies_on(machine: Machine, cell: int) -> bool:
    """Tell whether threads and memory of a machine are on a cell, and nowhere else."""
    memory, pid = memory_of(machine), pid_of(machine)
    threads = [main_thread(pid), *vcpu_threads(pid)]
    return memory.size_bytes >= 60 * MIB and memory.share(cell) > 0.99 and set(threads) == {CPUS[cell]}


async def until_on(rig: Rig, machine: Machine, cell: int) -> None:
    """Wait until it lies there, and libvirt knows: it is told last, so the move has ended."""

    def told() -> bool:
        nodes: str = rig.domain(machine).numaParameters()["numa_nodeset"]
        return nodes == str(cell)

    await rig.reports.until(
        lambda: lies_on(machine, cell) and told(), 120, f"{machine.name} on cell {cell}", lambda: memory_of(machine)
    )


async def test_machines_lie_on_a_cell_each_and_move_with_their_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = toucher(), toucher()
    await asyncio.gather(started(rig, one), started(rig, two))
    home, other = cell_of(rig, one), cell_of(rig, two)
    assert {home, other} == {0, 1}, "they were started at once, and have seen each other"
    assert lies_on(one, home)
    assert lies_on(two, other)
    # By hand: both on one cell.
    before = rig.daemon.numa.moves
    await rig.daemon.numa.move(Move(two.uid, other, home, "Moved by hand."))
    await until_on(rig, two, home)
    assert rig.daemon.numa.moves == before + 1
    await rig.reports.until(lambda: rig.last(two).numa.message == "Moved by hand.", 20, "the report")  # type: ignore[union-attr]
    # By itself, once one cell is told to be busy with both, and the other idle.
    numa = rig.daemon.numa
    numa.clock = lambda: time.monotonic() * FASTER
    numa.read_times = lambda: _times(home)
    monkeypatch.setattr(rig.hypervisor, "read_cpu_seconds", lambda: _seconds(one, two))
    end = time.monotonic() + 60 * rig.reports.patience
    while numa.moves == before + 1:
        assert time.monotonic() < end, rig.cells.found
        await numa.look()
        await asyncio.sleep(0.5)
    monkeypatch.undo()
    await rig.reports.until(lambda: {cell_of(rig, one), cell_of(rig, two)} == {0, 1}, 60, "the move")
    (gone,) = (m for m in (one, two) if cell_of(rig, m) == other)
    await until_on(rig, gone, other)
    report = rig.last(gone)
    assert report is not None
    assert report.numa is not None
    assert report.numa.message.startswith(f"Moved from NUMA cell {home}, ")
    # A daemon that was killed between the threads and the memory goes on from there.
    home = cell_of(rig, one)
    await rig.kill_daemon()
    stored = (await rig.hypervisor.read(one.uid)).stored
    assert stored is not None
    assert stored.placement is not None
    placement = stored.placement.model_copy(update={"cells": (1 - home,)})
    await rig.hypervisor.write_stored(stored.model_copy(update={"placement": placement}))
    rig.domain(one).pinVcpuFlags(0, tuple(cpu in CPUS[1 - home] for cpu in range(4)), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    assert memory_of(one).share(home) > 0.99
    await rig.restart_daemon()
    await until_on(rig, one, 1 - home)
    await rig.remove(one)
    await rig.remove(two)


async def test_a_machine_larger_than_a_cell_sees_two_halves_and_pins_spread_evenly(rig: Rig) -> None:
    wide, pinned = toucher(cores=3), toucher(cores=2, affinity={0: "1", 1: "2"})
    reports = await asyncio.gather(started(rig, wide), started(rig, pinned))
    assert [(r.numa.cells, r.numa.policy) for r in reports if r.numa] == [((0, 1), "Spread"), ((0, 1), "Pinned")]
    assert vcpu_threads(pid_of(wide)) == [CPUS[0], CPUS[0], CPUS[1]]
    cells = etree.fromstring(rig.domain(wide).XMLDesc()).findall("cpu/numa/cell")
    assert [(cell.get("cpus"), cell.get("memory")) for cell in cells] == [("0-1", "32768"), ("2", "32768")]
    halves = mappings(pid_of(wide))[:2]
    assert {half.policy for half in halves} == {"bind:0", "bind:1"}
    assert all(half.share(int(half.policy[-1])) > 0.99 for half in halves)
    assert sum(half.size_bytes for half in halves) >= 60 * MIB
    assert vcpu_threads(pid_of(pinned)) == [{1}, {2}]
    memory = memory_of(pinned)
    assert memory.policy == "interleave:0-1"
    assert abs(memory.share(0) - 0.5) < 0.01
    await rig.remove(wide)
    # The user changes his mind: threads follow at once, memory that is spread waits for the next start.
    hardware = pinned.hardware.model_copy(update={"affinity": {0: "2", 1: "3"}})
    pinned = await rig.put(pinned, hardware=hardware)
    await rig.reports.until(lambda: vcpu_threads(pid_of(pinned)) == [{2}, {3}], 60, "the pins")
    await rig.reports.until(lambda: rig.last(pinned).restart_required == ("cpu.affinity",), 60, "the report")  # type: ignore[union-attr]
    await rig.remove(pinned)


def _times(busy: int) -> dict[int, CpuTimes]:
    """Return CPU times that grow as the clock does: of one cell's CPUs all of it in use, of the others nothing."""
    now = time.monotonic()
    return {cpu: CpuTimes(now, 0) if cpu in CPUS[busy] else CpuTimes(0, now) for cpu in range(4)}


async def _seconds(*machines: Machine) -> dict[str, float]:
    return {machine.uid: time.monotonic() for machine in machines}


@pytest.fixture
def no_pages_left() -> Iterator[None]:
    yield
    (PAGES / "nr_hugepages").write_text("0")


@pytest.mark.usefixtures("no_pages_left")
async def test_huge_pages_and_dedicated_cpus_are_of_the_cell(rig: Rig) -> None:
    neighbour = toucher()
    await started(rig, neighbour)
    home = cell_of(rig, neighbour)
    owner = toucher(hugepage_bytes=2 * MIB, dedicated_cpus=True)
    await rig.put(owner)
    await rig.reports.until(lambda: (r := rig.last(owner)) and r.reason == "WaitingForHugepages", 60, "the refusal")
    report = rig.last(owner)
    assert report is not None
    assert report.message.startswith("32 huge pages of 2Mi are needed, and there are 0 in cell 0, 0 in cell 1 free")
    (PAGES / "nr_hugepages").write_text("40")
    await rig.cells.look()
    report = await rig.until_phase(owner, Phase.RUNNING, 120)
    await rig.until_console(owner, READY, seconds=120)
    assert report.numa is not None
    assert report.numa.cells == (1,)
    assert (PAGES / "free_hugepages").read_text().strip() == "8"
    memory = memory_of(owner)
    assert memory.huge
    assert memory.bytes_by_cell == {1: 64 * MIB}
    assert vcpu_threads(pid_of(owner)) == [{3}]
    assert main_thread(pid_of(owner)) == {2}
    room = CPUS[0] if home == 0 else frozenset((2,))
    await rig.reports.until(lambda: vcpu_threads(pid_of(neighbour)) == [room], 60, "room")
    await rig.remove(owner)
    await rig.reports.until(lambda: vcpu_threads(pid_of(neighbour)) == [CPUS[home]], 60, "the CPU")
    assert (PAGES / "free_hugepages").read_text().strip() == "40"
    await rig.remove(neighbour)
