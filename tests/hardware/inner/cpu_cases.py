"""Shares, a reservation and a limit where systemd keeps control groups of version 2."""

import asyncio
import time
from pathlib import Path

import libvirt
import pytest

from machine_rig import FACTS, FREQUENCY, KERNEL, Rig, new_machine
from this_host import READY
from virtfleet_api.machine import CpuScheduling, Machine, MachineKernel
from virtfleet_api.report import Phase
from virtfleet_node.core.host_cpu import CGROUP_V2

SETTLE_SECONDS = 3.5
MEASURE_SECONDS = 4.0
TOLERANCE = 0.2
"""An emulated processor is not fair to a tenth."""

SCOPES = Path("/sys/fs/cgroup/machine.slice")


def spinner(shares: int) -> Machine:
    kernel = MachineKernel(image_uid=KERNEL, cmdline="+spin")
    scheduling = CpuScheduling(shares=shares)
    return new_machine(grace_period_seconds=0, kernel=kernel, affinity={0: "3"}, scheduling=scheduling)


async def schedule(rig: Rig, machine: Machine, scheduling: CpuScheduling) -> Machine:
    return await rig.put(machine, hardware=machine.hardware.model_copy(update={"scheduling": scheduling}))


async def use(rig: Rig, *machines: Machine) -> list[float]:
    """Return what each has of a CPU, once a change has settled."""

    def used() -> list[int]:
        return [rig.domain(machine).getCPUStats(total=True)[0]["cpu_time"] for machine in machines]

    await asyncio.sleep(SETTLE_SECONDS)
    begin, before = time.monotonic(), used()
    await asyncio.sleep(MEASURE_SECONDS)
    took, after = time.monotonic() - begin, used()
    return [(b - a) / 1e9 / took for a, b in zip(before, after, strict=True)]


def weights(rig: Rig, *machines: Machine) -> list[int]:
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    return [rig.domain(machine).schedulerParametersFlags(live)["cpu_shares"] for machine in machines]


def quotas(machine: Machine) -> set[str]:
    """Return what the kernel limits the machine's groups to."""
    scope = next(path for path in SCOPES.glob("machine-qemu*") if machine.uid in path.name.replace("\\x2d", "-"))
    return {path.read_text().strip() for path in scope.rglob("cpu.max")}


async def test_weights_and_quotas_are_what_the_kernel_takes_and_does(rig: Rig) -> None:
    assert FACTS.cpu.scale == CGROUP_V2
    one, two = spinner(1000), spinner(2000)
    for machine in (one, two):
        await rig.put(machine)
    for machine in (one, two):
        await rig.until_phase(machine, Phase.RUNNING, 120)
        await rig.until_console(machine, READY, seconds=120)
    first, second = await use(rig, one, two)
    assert weights(rig, one, two) == [1000, 2000]
    assert second / first == pytest.approx(2, rel=TOLERANCE), (first, second)
    one = await schedule(rig, one, CpuScheduling(shares=1000, reservation_hz=FREQUENCY // 2))
    first, second = await use(rig, one, two)
    assert weights(rig, one, two) == [pytest.approx(2000, rel=0.02), 2000]
    assert second / first == pytest.approx(1, rel=TOLERANCE), (first, second)
    assert quotas(one) == {"max 100000"}
    one = await schedule(rig, one, CpuScheduling(limit_hz=FREQUENCY // 5))
    (first,) = await use(rig, one)
    assert "20000 100000" in quotas(one)
    assert first == pytest.approx(0.2, abs=0.03)
    one = await schedule(rig, one, CpuScheduling())
    await rig.reports.until(lambda: quotas(one) == {"max 100000"}, 20, "no limit")
    for machine in (one, two):
        await rig.remove(machine)
