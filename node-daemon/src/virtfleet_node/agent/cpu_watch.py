"""Keep the weights of running guests as their shares and reservations want them.

It is the only writer of weights. While no running machine has a reservation, weights are the shares: nothing is
measured for them, and a look costs no call of libvirt's.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.cpu_figure import CpuFigure
from virtfleet_node.core.demand import CpuCounters, use_between, wanted
from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.shares import Contender, Portion, has_reservation, share_out
from virtfleet_node.core.weights import is_step, weights

_LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 1.0
"""A change of a machine's document or demand is answered within two looks."""

MEASURE_SECONDS: Final = 10.0
"""Between measurements that are for metrics alone."""

PINS_SECONDS: Final = 5.0
"""Between looks at the CPUs that guests are kept to."""


AGAIN_SECONDS: Final = 30.0
"""Between tries to write the weight of a guest that libvirt does not let us change."""


@dataclass
class _Guest:
    """What is remembered of a running guest."""

    started_at: datetime | None
    weight: int | None = None
    """As it was written or found last; None when it is not known."""
    cpus: frozenset[int] | None = None
    counters: CpuCounters | None = None
    demand: float | None = None
    again_at: float = float("-inf")
    """Its weight is not written before; by the clock of the looks."""


class CpuWatch:
    """Shares out the host's CPUs."""

    def __init__(self, around: Surroundings, entries: dict[str, Entry]) -> None:
        self._around = around
        self._entries = entries
        self._guests: dict[str, _Guest] = {}
        self._measured_at = float("-inf")
        self._pins_at = float("-inf")
        self.figures: tuple[CpuFigure, ...] = ()
        """As last measured; replaced as a whole, so that another thread may read it."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while self._around.facts.cpu.scale is not None:
            try:
                await self.look(loop.time())
            except NodeError as error:  # libvirtd is away: the kernel goes on by the weights it has
                _LOG.debug("Sharing out CPUs later", extra={"reason": str(error)})
                self._guests.clear()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self, now: float) -> None:
        """Look once; `now` is the time of a clock that only goes forward, in seconds."""
        running = {uid: entry for uid, entry in self._entries.items() if entry.scheduling is not None}
        self._guests = {uid: self._known(uid, entry) for uid, entry in running.items()}
        measures = has_reservation(self._contenders(running))
        if measures and now - self._pins_at >= PINS_SECONDS:
            await self._read_pins(now)
        if measures or now - self._measured_at >= MEASURE_SECONDS:
            await self._measure(now)
        portions = share_out(self._contenders(running), self._around.facts.cpu)
        self._tell(portions)
        await self._write(portions, now, exact=not measures)

    def _known(self, uid: str, entry: Entry) -> _Guest:
        """Return what is remembered, nothing of a guest that was started anew."""
        started_at = entry.report.started_at if entry.report else None
        known = self._guests.get(uid)
        if known is not None and known.started_at == started_at:
            return known
        self._pins_at = float("-inf")
        return _Guest(started_at)

    def _contenders(self, running: Mapping[str, Entry]) -> dict[str, Contender]:
        return {
            uid: Contender(entry.scheduling, entry.vcpus, self._guests[uid].cpus, self._guests[uid].demand)
            for uid, entry in running.items()
            if entry.scheduling is not None
        }

    async def _read_pins(self, now: float) -> None:
        found = await self._around.hypervisor.read_cpu_sets(tuple(self._guests))
        for uid, guest in self._guests.items():
            guest.cpus = found.get(uid)
        self._pins_at = now

    async def _measure(self, now: float) -> None:
        """Measure; a guest that is paused is not counted, and wants nothing."""
        seconds, self._measured_at = now - self._measured_at, now
        counted = await self._around.hypervisor.read_cpu_counters()
        for uid, guest in self._guests.items():
            seen, before = counted.get(uid), guest.counters
            guest.counters = seen
            if seen is None:
                guest.demand = 0.0
                continue
            use = use_between(before, seen, seconds) if before else None
            guest.demand = wanted(use, self._entries[uid].vcpus, guest.demand)

    def _tell(self, portions: Mapping[str, Portion]) -> None:
        self.figures = tuple(
            CpuFigure(
                self._entries[uid].desired.namespace,
                self._entries[uid].desired.name,
                guest.counters.used_ns / 1e9,
                portions[uid].entitled_hz,
                None if guest.counters.waited_ns is None else guest.counters.waited_ns / 1e9,
            )
            for uid, guest in self._guests.items()
            if guest.counters is not None and uid in portions
        )

    async def _write(self, portions: Mapping[str, Portion], now: float, *, exact: bool) -> None:
        """Write what has changed by a step; shares that users have written are written as they are."""
        scale = self._around.facts.cpu.scale
        if scale is None:
            return
        due = weights({uid: portion.shares for uid, portion in portions.items()}, scale)
        await asyncio.gather(
            *(
                self._write_one(uid, weight, now, exact=exact)
                for uid, weight in due.items()
                if now >= self._guests[uid].again_at and not self._entries[uid].capturing
            )
        )

    async def _write_one(self, uid: str, weight: int, now: float, *, exact: bool) -> None:
        """Write one guest's weight; one that cannot be written must not hold up the others."""
        guest, hypervisor = self._guests[uid], self._around.hypervisor
        try:
            before = guest.weight if guest.weight is not None else await hypervisor.read_cpu_weight(uid)
            if before is not None and before != weight and (exact or is_step(before, weight)):
                await hypervisor.write_cpu_weight(uid, weight)
                before = weight
            guest.weight = before
        except NodeError as error:
            guest.weight, guest.again_at = None, now + AGAIN_SECONDS
            _LOG.warning("Weighing a guest later", extra={"uid": uid, "reason": str(error)})
