"""vCPUs and memory of a running guest, changed by its document, and seen inside the guest."""

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from fleet import run_inside
from machine_rig import KERNEL, Rig, new_machine
from virtfleet_api.machine import Machine, MachineKernel
from virtfleet_api.report import MachineReport, Phase
from virtfleet_dev.guest_image import CMDLINE

MIB = 1 << 20
BOOT = 192 * MIB
CEILING = 768 * MIB
STEP = 2 * MIB
ROUNDS = 20
CRASHES = (3, 8, 13)
"""Changes after which the daemon ends without tidying up, and starts anew."""
KILLS = (6, 16)
"""Changes after which libvirtd is killed."""
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

    async def until(self, condition: Callable[[MachineReport], object], what: str, seconds: float = 60) -> None:
        await self.rig.reports.until(lambda: condition(self.report()), seconds, what)

    async def until_has(self, cores: int, size: int) -> None:
        """Wait until the report says so."""
        await self.until(lambda r: (r.vcpus, r.memory_bytes) == (cores, size), f"{cores} vCPUs and {size >> 20} MiB")

    async def until_inside(self, cores: int, size: int) -> None:
        """Wait until the guest counts so much: a new daemon tells what is plugged until it has asked the agent."""
        grown_kib, end = (size - BOOT) // 1024, time.monotonic() + 20
        while True:
            counted, total_kib = await self.seen_inside()
            off = abs(total_kib - self.base_kib - grown_kib) > NOISE_KIB + abs(grown_kib) // 50
            if counted == cores and not off:
                return
            assert time.monotonic() < end, (SEED, counted, cores, total_kib - self.base_kib, grown_kib)
            await asyncio.sleep(0.2)

    async def seen_inside(self) -> tuple[int, int]:
        """Return the vCPUs and the memory in KiB that the guest itself counts."""
        command = "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo"
        _, said = await asyncio.to_thread(run_inside, self.rig.domain(self.machine), command)
        return int(said.split()[0]), int(re.findall(r"MemTotal: *([0-9]+)", said)[0])


async def grow(rig: Rig, cmdline: str = CMDLINE, **hardware: object) -> Grown:
    """Start a machine with ceilings."""
    given = {"memory_bytes": BOOT, "max_memory_bytes": CEILING, "cores": 1, "max_vcpus": 4, **hardware}
    machine = await rig.put(new_machine(kernel=MachineKernel(image_uid=KERNEL, cmdline=cmdline), **given))
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.until_agent(machine)
    made = Grown(rig, machine, rig.qemu_pids())
    _, made.base_kib = await made.seen_inside()
    return made


async def test_twenty_changes_in_any_order_are_seen_inside_without_a_restart(rig: Rig) -> None:
    grown, chance = await grow(rig), random.Random(SEED)
    took: list[float] = []
    for number in range(ROUNDS):
        cores, size = chance.randint(1, 4), chance.randint(BOOT // STEP - 16, CEILING // STEP) * STEP
        begin = time.monotonic()
        await grown.want(cores=cores, memory_bytes=size)
        if number in CRASHES:
            await rig.crash_daemon()
        if number in KILLS:
            os.kill(rig.node.pids("libvirtd")[0], signal.SIGKILL)
        await grown.until_has(cores, size)
        took.append(time.monotonic() - begin)
        if number in KILLS:
            rig.reconnect()
        await grown.until_inside(cores, size)
        assert not grown.report().restart_required, SEED
        assert not grown.report().held_compute, SEED
    assert sorted(took)[ROUNDS // 2] < 10, (SEED, took)
    await impossible_changes_say_why(grown)
    await a_class_waits_for_the_next_start(grown)
    await a_reboot_of_the_guest_changes_nothing(grown)
    assert rig.qemu_pids() == grown.pids, (SEED, grown.report())
    await rig.remove(grown.machine)


async def impossible_changes_say_why(grown: Grown) -> None:
    await grown.want(cores=2, memory_bytes=BOOT)
    await grown.until_has(2, BOOT)
    await grown.want(cores=8, memory_bytes=1024 * MIB, threads=1, max_vcpus=8, max_memory_bytes=1024 * MIB)
    await grown.until(lambda r: r.restart_required, "the reasons")
    assert grown.report().restart_required == (
        "cpu.maxVcpus",
        "memory.max",
        "cpu.cores (8 vCPUs, and the running guest can have 4)",
        "memory.guest (1Gi, and the running guest can have 768Mi)",
    )
    assert (grown.report().max_vcpus, grown.report().max_memory_bytes) == (4, CEILING)
    assert (await grown.seen_inside())[0] == 2
    await grown.want(cores=2, memory_bytes=BOOT, max_vcpus=4, max_memory_bytes=CEILING)
    await grown.until(lambda r: not r.restart_required, "nothing to wait for")


async def a_class_waits_for_the_next_start(grown: Grown) -> None:
    await grown.want(cores=3, memory_bytes=BOOT + 64 * MIB, deferred=("cores", "memory_bytes"))
    await grown.until(lambda r: r.restart_required, "what waits")
    reason = "its VMClass changes machines when they restart"
    assert grown.report().restart_required == (f"cpu.cores ({reason})", f"memory.guest ({reason})")
    assert (await grown.seen_inside())[0] == 2
    await grown.want(deferred=())
    await grown.until_has(3, BOOT + 64 * MIB)


async def a_reboot_of_the_guest_changes_nothing(grown: Grown) -> None:
    await grown.want(cores=1)
    await grown.until_has(1, BOOT + 64 * MIB)
    grown.rig.domain(grown.machine).reset(0)
    await grown.until(lambda r: not r.agent_connected, "the reboot")
    await grown.rig.until_agent(grown.machine)
    await grown.until_has(1, BOOT + 64 * MIB)
    await grown.until_inside(1, BOOT + 64 * MIB)


async def test_a_guest_without_a_driver_is_given_dimms_and_told_of(rig: Rig) -> None:
    grown = await grow(rig, f"{CMDLINE} module_blacklist=virtio_mem")
    await grown.want(memory_bytes=BOOT + 192 * MIB)
    await grown.until(lambda r: r.memory_bytes == BOOT + 128 * MIB, "a DIMM")
    await grown.until(lambda r: r.held_compute, "what it does not take")
    assert grown.report().held_compute == ("it has 320Mi of memory where it shall have 384Mi",)
    _, total_kib = await grown.seen_inside()
    assert abs(total_kib - grown.base_kib - (128 << 10)) <= NOISE_KIB
    await grown.want(memory_bytes=BOOT)
    await grown.until_has(1, BOOT)
    _, total_kib = await grown.seen_inside()
    assert abs(total_kib - grown.base_kib) <= NOISE_KIB
    assert grown.report().held_compute == ()
    assert rig.qemu_pids() == grown.pids
    await rig.remove(grown.machine)
