"""Look at the load of the host's NUMA cells now and then, and move a machine where that helps; decided in the core."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.numa.load import CpuTimes, busy_cpus, loads
from virtfleet_node.core.numa.rebalance import Balance, Move, rebalance
from virtfleet_node.host.cpu_times import read_cpu_times

_LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 10.0
"""Reading the host's files takes less than a millisecond, the times of all machines one call of libvirt's."""

_SEVERAL: Final = 2
"""Cells from which there is something to balance."""


class NumaWatch:
    """Keeps the cells' figures current and the host balanced."""

    def __init__(
        self,
        around: Surroundings,
        entries: Mapping[str, Entry],
        wake: Callable[[str], None],
        read_times: Callable[[], Mapping[int, CpuTimes]] = read_cpu_times,
    ) -> None:
        self._around = around
        self._entries = entries
        self._wake = wake
        self.read_times = read_times
        self._balance = Balance()
        self._cpu_times: Mapping[int, CpuTimes] = {}
        self._machine_seconds: Mapping[str, float] = {}
        self._looked_at = 0.0
        self.clock: Callable[[], float] = time.monotonic
        """By which it is decided how long something has been so."""
        self.moves = 0
        """Made since the daemon was started."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while self._around.cells.found:
            with contextlib.suppress(NodeError, OSError):  # what cannot be read is told as it last was
                await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Look once, and begin the move that is due."""
        cells = self._around.cells
        times = await asyncio.to_thread(self.read_times)
        if self._cpu_times:
            cells.take_load(busy_cpus(cells.found, self._cpu_times, times))
        self._cpu_times = times
        await cells.look()
        if len(cells.host.cells) >= _SEVERAL:
            await self._balance_now()

    async def _balance_now(self) -> None:
        cells, now = self._around.cells, time.monotonic()
        seconds = await self._around.hypervisor.read_cpu_seconds()
        cells.loads = loads(self._machine_seconds, seconds, now - self._looked_at)
        self._machine_seconds, self._looked_at = seconds, now
        self._balance, move = rebalance(cells.host, cells.residents, self._balance, self.clock())
        if move is not None:
            await self.move(move)

    async def move(self, move: Move) -> None:
        """Keep where a machine shall lie from now on; the plan brings it there, whoever makes it."""
        entry = self._entries.get(move.uid)
        if entry is None:
            return
        async with entry.lock:
            domain = await self._around.hypervisor.read(move.uid)
            stored = domain.stored
            if not domain.active or stored is None or stored.placement is None:
                return
            if stored.placement.cells != (move.source,):
                return
            placement = stored.placement.model_copy(update={"cells": (move.target,), "message": move.message})
            await self._around.hypervisor.write_stored(stored.model_copy(update={"placement": placement}))
        self.moves += 1
        _LOG.info("Moving a machine to another NUMA cell", extra={"uid": move.uid, "reason": move.message})
        self._wake(move.uid)
