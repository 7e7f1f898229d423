"""What Prometheus is told of real guests: where they stand, what they use, and how often they have crashed."""

import os
import signal
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from machine_rig import DISK, Rig, new_machine
from virtfleet_api.machine import ImageDiskSource, Machine, MachineDisk
from virtfleet_api.report import Phase
from virtfleet_node.agent.metrics import Sources, register


class Told:
    """The metrics of the rig's daemon."""

    def __init__(self, rig: Rig) -> None:
        self._registry = CollectorRegistry()
        sources = Sources(
            machines=rig.daemon.list_machines,
            disk_io=lambda: rig.daemon.disk_io.figures,
            cpus=lambda: rig.daemon.cpu.figures,
        )
        register(self._registry, sources)

    def of(self, machine: Machine, word: str, **labels: str) -> float:
        """Return a value of a machine; 0 while there is none."""
        own = {"namespace": machine.namespace, "machine": machine.name, **labels}
        return self._registry.get_sample_value(f"virtfleet_node_{word}", own) or 0

    def is_in(self, machine: Machine, phase: Phase, reason: str = "") -> bool:
        """Tell whether the machine is told to be in a phase."""
        return self.of(machine, "machine_phase", phase=phase.value, reason=reason) == 1


@pytest.fixture
def told(rig: Rig) -> Iterator[Told]:
    return Told(rig)


async def test_a_running_guest_is_told_with_its_cpu_and_what_it_reads(rig: Rig, told: Told) -> None:
    disk = MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=DISK))
    machine = await rig.put(new_machine(disks=(disk,)))
    await rig.until_phase(machine, Phase.RUNNING)
    assert told.is_in(machine, Phase.RUNNING)
    assert told.of(machine, "machine_memory_bytes") == machine.hardware.memory_bytes
    await rig.type(machine, "dd if=/dev/vda of=/dev/null bs=1M count=8; echo READ$((0))")
    await rig.until_console(machine, "READ0")
    await rig.daemon.disk_io.look()
    assert told.of(machine, "disk_read_bytes_total", disk="root") >= 8 << 20
    assert told.of(machine, "disk_reads_total", disk="root") >= 1
    await rig.reports.until(lambda: told.of(machine, "cpu_seconds_total") > 0, 30, "the measurement")
    await rig.remove(machine)
    await rig.daemon.disk_io.look()
    assert told.of(machine, "disk_read_bytes_total", disk="root") == 0


async def test_each_crash_is_counted(rig: Rig, told: Told) -> None:
    machine = await rig.put(new_machine())
    await rig.until_phase(machine, Phase.RUNNING)
    assert told.of(machine, "machine_restarts") == 0
    (pid,) = rig.qemu_pids()
    os.kill(pid, signal.SIGKILL)
    await rig.reports.until(lambda: told.of(machine, "machine_restarts") == 1, 30, "the crash")
    await rig.reports.until(lambda: told.is_in(machine, Phase.RUNNING), 60, "the next start")
