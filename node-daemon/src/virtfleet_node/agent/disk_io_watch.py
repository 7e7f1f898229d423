"""Look at the counters of disks now and then, for metrics."""

import asyncio
import contextlib
from typing import Final

from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.disk_io import DiskIoFigure
from virtfleet_node.core.errors import NodeError

EVERY_SECONDS: Final = 30.0
"""One call of libvirt's, that asks each QEMU once; rarer than what costs no QEMU anything."""


class DiskIoWatch:
    """Keeps the counters of disks current."""

    def __init__(self, around: Surroundings, entries: dict[str, Entry]) -> None:
        self._around = around
        self._entries = entries
        self.figures: tuple[DiskIoFigure, ...] = ()
        """As last seen; replaced as a whole, so that another thread may read it."""

    async def run(self) -> None:
        """Look again and again, until cancelled. One look at a time: a QEMU that hangs costs one thread, not all."""
        while True:
            with contextlib.suppress(NodeError):  # libvirtd is away: what was last seen is told
                await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Look once."""
        counted = await self._around.hypervisor.read_disk_io()
        self.figures = tuple(
            DiskIoFigure(entry.desired.namespace, entry.desired.name, disk.name, counted[uid][disk.target])
            for uid, entry in self._entries.items()
            if uid in counted and entry.report is not None
            for disk in entry.report.disks
            if disk.target in counted[uid]
        )
