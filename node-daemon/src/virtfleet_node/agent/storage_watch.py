"""Look at pools and disk files now and then: nothing tells of what guests write into them."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from virtfleet_api.report import MachineReport, NodeReport, Phase
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.report import with_allocations
from virtfleet_node.core.stored import StoredDisk

_LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 10.0
"""A thousand machines with two disks each are looked at in 0.2 s."""


@dataclass(frozen=True)
class DiskFigure:
    """A disk of a machine, for whoever counts."""

    namespace: str
    machine: str
    disk: StoredDisk


class StorageWatch:
    """Keeps the figures of pools and disks current."""

    def __init__(
        self, around: Surroundings, entries: Callable[[], Iterable[Entry]], describe: Callable[[], NodeReport]
    ) -> None:
        self._around = around
        self._entries = entries
        self._describe = describe
        self.disks: tuple[DiskFigure, ...] = ()
        """As last seen; replaced as a whole, so that another thread may read it."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            with contextlib.suppress(OSError, NodeError):  # what cannot be read is told as it last was
                await self.look()

    async def look(self) -> None:
        """Look once, and publish what has moved by a step."""
        entries = tuple(self._entries())
        await asyncio.to_thread(self._around.wanted_pools.tidy)
        await self._around.images.take_up()
        found = await asyncio.to_thread(self._read, tuple(entry.desired.uid for entry in entries))
        self.disks = tuple(
            DiskFigure(entry.desired.namespace, entry.desired.name, disk)
            for entry, disks in zip(entries, found, strict=True)
            for disk in disks
        )
        for entry, disks in zip(entries, found, strict=True):
            self._publish(entry, disks)
        self._around.journal.publish_node(self._describe())

    def _read(self, uids: tuple[str, ...]) -> tuple[tuple[StoredDisk, ...], ...]:
        return tuple(self._around.disks.read_disks(uid) for uid in uids)

    def _publish(self, entry: Entry, disks: tuple[StoredDisk, ...]) -> None:
        before: MachineReport | None = entry.report
        if before is None or before.phase is Phase.ABSENT:  # it has gone while its disks were looked at
            return
        report = with_allocations(before, {(disk.pool, disk.name): disk.allocated_bytes for disk in disks})
        if report != before:
            entry.report = report
            self._around.journal.publish_machine(report)
