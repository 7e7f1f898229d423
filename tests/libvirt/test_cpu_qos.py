"""Shares, reservation and limit of busy guests on one CPU of the host, changed while they run.

Other work may want the CPU, too: the node is preferred to it meanwhile, and shares and reservations are judged by what
the guests have in proportion to each other; a limit is judged by the clock.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import libvirt
import pytest

from machine_rig import FACTS, FREQUENCY, Rig, new_machine
from virtfleet_api.machine import CpuScheduling, Machine

pytestmark = pytest.mark.alone

SETTLE_SECONDS = 3.0
MEASURE_SECONDS = 3.0
LONGEST_SECONDS = 18.0
"""Other work of the host may disturb a few seconds, and does not a longer time as a whole."""
TOLERANCE = 0.12
"""Ten seconds of a host with nothing else to do are within 0.05; what is mistaken here is off by a half and more."""
IDLES = 0.1
"""Most of a CPU that an idle guest takes."""

CPU = 1
PREFERRED = 65536
"""Weight of the node among the host's other work."""

BUSY = "while :; do :; done &"
IDLE = "kill $!"


class Guests:
    """Three guests on one CPU."""

    def __init__(self, rig: Rig, machines: list[Machine]) -> None:
        self.rig = rig
        self.machines = machines

    async def schedule(self, *schedulings: CpuScheduling) -> None:
        """Change what the guests ask for while they run."""
        for number, scheduling in enumerate(schedulings):
            machine = self.machines[number]
            hardware = machine.hardware.model_copy(update={"scheduling": scheduling})
            self.machines[number] = await self.rig.put(machine, hardware=hardware)

    async def measure(self, fits: Callable[[tuple[float, ...]], bool]) -> None:
        """See that what each has of a CPU fits, from three seconds on, in three seconds or the whole time."""
        await asyncio.sleep(SETTLE_SECONDS)
        looks = [(time.monotonic(), self._used())]
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            looks.append((time.monotonic(), self._used()))
            whole, last = _shares(looks[0], looks[-1]), _shares(looks[-2], looks[-1])
            if fits(whole) or fits(last):
                return
            took = looks[-1][0] - looks[0][0]
            assert took < LONGEST_SECONDS, (whole, last, [self.weight(n) for n in range(len(whole))])

    async def divide(self, *parts: float) -> None:
        """See that the guests divide what they have like this; who idles has part 0."""

        def fits(used: tuple[float, ...]) -> bool:
            busy = tuple(one if part else 0.0 for one, part in zip(used, parts, strict=True))
            had, wanted = (tuple(one / sum(all_) for one in all_) for all_ in (busy, parts))
            return had == pytest.approx(wanted, rel=TOLERANCE) and sum(used) < sum(busy) + IDLES

        await self.measure(fits)

    def weight(self, number: int) -> int:
        domain = self.rig.domain(self.machines[number])
        return int(domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)["cpu_shares"])

    def _used(self) -> list[int]:
        return [self.rig.domain(machine).getCPUStats(total=True)[0]["cpu_time"] for machine in self.machines]


def _shares(before: tuple[float, list[int]], after: tuple[float, list[int]]) -> tuple[float, ...]:
    """Return how much of a CPU each guest had between two looks."""
    took = after[0] - before[0]
    return tuple((b - a) / 1e9 / took for a, b in zip(before[1], after[1], strict=True))


@contextmanager
def preferred(rig: Rig) -> Iterator[None]:
    """Prefer the node to other work of this host."""
    weight = Path("/sys/fs/cgroup/cpu") / rig.node.namespace / "cpu.shares"
    before = weight.read_text()
    weight.write_text(str(PREFERRED))
    try:
        yield
    finally:
        weight.write_text(before)


def keep_on_cpu(rig: Rig) -> None:
    """Keep QEMU's other threads from other CPUs: Linux divides a group's weight by where its threads want to run."""
    for pid in rig.qemu_pids():
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {CPU})


@asynccontextmanager
async def busy_guests(rig: Rig, count: int) -> AsyncIterator[Guests]:
    """So many guests that want all of one CPU. Each test has its own, and begins alike when it is run again."""
    machines = [new_machine(grace_period_seconds=0, affinity={0: str(CPU)}) for _ in range(count)]
    with preferred(rig):
        for machine in machines:
            await rig.put(machine)
        for machine in machines:
            await rig.until_console(machine, "/ # ")
        keep_on_cpu(rig)
        for machine in machines:
            await rig.type(machine, BUSY)
        yield Guests(rig, machines)
        for machine in machines:
            await rig.remove(machine)


async def test_shares_then_a_reservation_divide_one_cpu_and_an_idle_one_costs_nothing(rig: Rig) -> None:
    async with busy_guests(rig, 3) as guests:
        await guests.schedule(CpuScheduling(shares=1000), CpuScheduling(shares=2000), CpuScheduling(shares=4000))
        await guests.divide(1, 2, 4)
        assert FACTS.cpu.scale
        weights = [FACTS.cpu.scale.per_share * share for share in (1000, 2000, 4000)]
        assert [guests.weight(n) for n in range(3)] == weights
        await guests.schedule(CpuScheduling(shares=1000, reservation_hz=FREQUENCY // 4))
        await guests.divide(1, 1, 2)
        first = guests.machines[0]
        await rig.type(first, IDLE, prompts=2)
        await guests.divide(0, 1, 2)
        await rig.type(first, BUSY, prompts=3)
        await guests.divide(1, 1, 2)


async def test_a_limit_holds_whatever_else_is_free_and_goes_again(rig: Rig) -> None:
    async with busy_guests(rig, 1) as guests:
        await guests.schedule(CpuScheduling(limit_hz=FREQUENCY // 2))
        await guests.measure(lambda used: used[0] == pytest.approx(0.5, abs=0.02))
        await guests.schedule(CpuScheduling())
        await guests.measure(lambda used: used[0] > 0.6)
        report = rig.last(guests.machines[0])
        assert report is not None
        assert report.restart_required == ()
