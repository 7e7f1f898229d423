"""Overwrite disks of machines that are removed, as their reclaim policy asks."""

import asyncio
import threading
from collections.abc import Callable

from virtfleet_node.agent.entry import Work
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.works import STEP, to_end
from virtfleet_node.core.actions import WipeDisk


class Wiper:
    """Wipes one disk at a time for each machine."""

    def __init__(self, around: Surroundings, wake: Callable[[str], None]) -> None:
        self._around = around
        self._wake = wake

    async def wipe(self, uid: str, work: Work, action: WipeDisk) -> None:
        """Overwrite the disk, then remove it; what is stopped goes on where it was."""
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def progress(percent: float) -> None:
            loop.call_soon_threadsafe(self._advance, uid, work, percent)

        wiping = asyncio.ensure_future(
            to_end(self._around.disks.wipe_disk, uid, action.pool, action.name, progress, stop.is_set)
        )
        try:
            await asyncio.shield(wiping)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait((wiping,))
            raise

    def _advance(self, uid: str, work: Work, percent: float) -> None:
        if percent >= work.percent + STEP:
            work.percent = int(percent)
            self._wake(uid)
