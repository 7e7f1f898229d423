"""vCPUs and memory of a running guest, changed by its document, and seen inside the guest."""

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest_asyncio

from fleet import run_inside
from machine_rig import Rig, new_machine
from virtfleet_api.machine import Machine
from virtfleet_api.report import MachineReport, Phase

MIB = 1 << 20
BOOT = 192 * MIB
CEILING = 768 * MIB
ROUNDS = 20
SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
NOISE_KIB = 8 << 10
"""What the kernel takes of memory it is given, and gives back, besides 2 % for its tables of pages."""


@dataclass
class Grown:
    """A machine with ceilings that runs, and the QEMU that it began with."""

    rig: Rig
    machine: Machine
    pids: tuple[int, ...]
    base_kib: int = 0
    """MemTotal of the guest at its start: firmware and kernel take some of what it was given."""

    async def want(self, **hardware: object) -> None:
        """Put the document with other hardware."""
        changed = self.machine.hardware.model_copy(update=hardware)
        self.machine = await self.rig.put(self.machine, hardware=changed)

    def report(self) -> MachineReport:
        report = self.rig.last(self.machine)
        assert report is not None
        return report

    async def until(self, condition: Callable[[MachineReport], object], what: str, seconds: float = 40) -> None:
        await self.rig.reports.until(lambda: condition(self.report()), seconds, what)

    async def until_has(self, cores: int, size: int) -> None:
        """Wait until the report says so."""
        await self.until(lambda r: (r.vcpus, r.memory_bytes) == (cores, size), f"{cores} vCPUs and {size >> 20} MiB")

    async def seen_inside(self) -> tuple[int, int]:
        """Return the vCPUs and the memory in KiB that the guest itself counts."""
        command = "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo"
        _, said = await asyncio.to_thread(run_inside, self.rig.domain(self.machine), command)
        return int(said.split()[0]), int(re.findall(r"MemTotal: *([0-9]+)", said)[0])


@pytest_asyncio.fixture(loop_scope="session")
async def grown(rig: Rig) -> AsyncIterator[Grown]:
    machine = new_machine(memory_bytes=BOOT, max_memory_bytes=CEILING, cores=1, max_vcpus=4)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.until_agent(machine)
    made = Grown(rig, machine, rig.qemu_pids())
    _, made.base_kib = await made.seen_inside()
    yield made
    await rig.remove(made.machine)


async def test_twenty_changes_in_any_order_are_seen_inside_without_a_restart(grown: Grown) -> None:
    chance = random.Random(SEED)
    took: list[float] = []
    for number in range(ROUNDS):
        cores, size = chance.randint(1, 4), chance.randint(BOOT // (2 * MIB) - 16, CEILING // (2 * MIB)) * 2 * MIB
        begin = time.monotonic()
        await grown.want(cores=cores, memory_bytes=size)
        if number % 5 == 3:
            await grown.rig.crash_daemon()
        await grown.until_has(cores, size)
        took.append(time.monotonic() - begin)
        counted, total_kib = await grown.seen_inside()
        assert counted == cores, SEED
        grown_kib = (size - BOOT) // 1024
        assert abs(total_kib - grown.base_kib - grown_kib) <= NOISE_KIB + abs(grown_kib) // 50, SEED
        assert not grown.report().restart_required, SEED
        assert not grown.report().held_compute, SEED
    assert sorted(took)[ROUNDS // 2] < 10, (SEED, took)
    assert grown.rig.qemu_pids() == grown.pids, SEED
