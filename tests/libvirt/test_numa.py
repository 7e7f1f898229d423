"""Dedicated CPUs and pins on the real libvirtd, as the kernel sees them. Cells of several: tests/hardware."""

import os
from collections.abc import Callable

from machine_rig import Rig, new_machine
from qemu_threads import main_thread, vcpu_threads
from virtfleet_api.machine import Machine
from virtfleet_api.report import Phase

CPUS = frozenset(os.sched_getaffinity(0))
LAST = max(CPUS)


async def started(rig: Rig, **hardware: object) -> tuple[Machine, int]:
    """Return a running machine, and the pid of its QEMU."""
    before = set(rig.qemu_pids())
    machine = new_machine(grace_period_seconds=0, memory_bytes=64 << 20, **hardware)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    (pid,) = set(rig.qemu_pids()) - before
    return machine, pid


async def until(rig: Rig, condition: Callable[[], object]) -> None:
    await rig.reports.until(condition, 20, "the pins")


async def test_dedicated_cpus_are_nobody_elses_while_their_machine_runs(rig: Rig) -> None:
    shared, neighbour = await started(rig)
    assert vcpu_threads(neighbour) == [CPUS]
    assert "vcpupin" not in rig.domain(shared).XMLDesc(), "without wishes nothing is said"
    owner, pid = await started(rig, dedicated_cpus=True)
    assert vcpu_threads(pid) == [{LAST}]
    assert main_thread(pid) == CPUS - {LAST}
    await until(rig, lambda: vcpu_threads(neighbour) == [CPUS - {LAST}])
    assert main_thread(neighbour) == CPUS - {LAST}
    greedy = new_machine(grace_period_seconds=0, memory_bytes=64 << 20, cores=len(CPUS), dedicated_cpus=True)
    await rig.put(greedy)
    report = await rig.until_phase(greedy, Phase.PROVISIONING)
    await rig.reports.until(lambda: (r := rig.last(greedy)) and r.reason == "WaitingForCpus", 20, "the refusal")
    report = rig.last(greedy)
    assert report is not None
    assert report.message.startswith(f"{len(CPUS)} CPUs are to be dedicated, and there are {len(CPUS) - 2} in cell 0")
    await rig.restart_daemon()
    assert vcpu_threads(pid) == [{LAST}]
    await rig.remove(owner)
    await until(rig, lambda: vcpu_threads(neighbour) == [CPUS] and main_thread(neighbour) == CPUS)
    last = rig.last(greedy)
    assert last is not None
    assert last.phase is Phase.PROVISIONING
    await rig.remove(greedy)
    await rig.remove(shared)


async def test_a_user_pins_vcpus_and_changes_them_while_the_guest_runs(rig: Rig) -> None:
    machine, pid = await started(rig, cores=2, affinity={1: str(LAST)})
    assert vcpu_threads(pid) == [CPUS, {LAST}]
    report = rig.last(machine)
    assert report is not None
    assert report.numa is not None
    assert (report.numa.cells, report.numa.policy) == ((0,), "Pinned")
    first = min(CPUS)
    hardware = machine.hardware.model_copy(update={"affinity": {0: str(first)}})
    machine = await rig.put(machine, hardware=hardware)
    await until(rig, lambda: vcpu_threads(pid) == [{first}, CPUS])
    await rig.remove(machine)
