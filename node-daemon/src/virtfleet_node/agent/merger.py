"""Fold layers of disks that nobody names: qemu-img merges those that no guest has open, QEMU those of its own guest.

Whatever is cut off has changed no content, and is done anew; what is done next is found by looking at the files.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from virtfleet_node.agent.entry import Entry, Work
from virtfleet_node.agent.look_at_layers import disk_of, find_step, recover_merges
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.works import STEP, to_end
from virtfleet_node.core.errors import ConflictError, NodeError
from virtfleet_node.core.plan_merge import AddLayer, MergeFiles, MergeLive, RemoveLayer, Step, bytes_needed

_LOG = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.2


class Merger:
    """Folds the layers of one disk at a time for each machine."""

    def __init__(self, around: Surroundings, entries: Mapping[str, Entry], wake: Callable[[str], None]) -> None:
        self._around = around
        self._entries = entries
        self._wake = wake

    async def fold(self, uid: str, work: Work) -> None:
        """Take one step after the other until none is left.

        Raises:
            NodeError: a step cannot be taken now.
        """
        entry = self._entries[uid]
        async with entry.copying:
            await self._end_earlier(uid, entry, work)
            while (step := await self._find(uid)) is not None:
                await asyncio.to_thread(self._around.disks.merges.check_room, disk_of(step)[0], bytes_needed(step))
                _LOG.info("Folding layers", extra={"uid": uid, "step": _describe(step)})
                work.percent = 0
                await self._take(uid, entry, work, step)

    async def _find(self, uid: str) -> Step | None:
        return await find_step(self._around, uid, await self._around.hypervisor.read(uid))

    async def _end_earlier(self, uid: str, entry: Entry, work: Work) -> None:
        """Wait for a job that an earlier process has left in QEMU, and do what follows from it."""
        hypervisor = self._around.hypervisor
        while (target := await hypervisor.find_commit(uid)) is not None:
            found = await asyncio.to_thread(self._around.disks.read_disks, uid)
            files = frozenset(path for disk in found for path in (disk.path, *disk.layers))
            await self._around.layer_use.merge(files, partial(self._follow, uid, work, target))
        async with entry.lock:
            await recover_merges(self._around, uid, running=(await hypervisor.read(uid)).active)

    async def _take(self, uid: str, entry: Entry, work: Work, step: Step) -> None:
        merges, use = self._around.disks.merges, self._around.layer_use
        match step:
            case RemoveLayer(layer):
                async with entry.lock:
                    await to_end(merges.remove, layer)
            case AddLayer(target):
                async with entry.lock:
                    path = await merges.add(step)
                    await self._around.hypervisor.add_layer(uid, target, path)
            case MergeFiles(lower, upper):
                files = frozenset((lower.path, upper.path))
                await use.merge(files, lambda: self._merge_files(uid, entry, work, step))
            case MergeLive(_, lower, upper, child):
                files = frozenset((lower.path, upper.path, child.path))
                await use.merge(files, lambda: self._merge_live(uid, entry, work, step))

    async def _merge_files(self, uid: str, entry: Entry, work: Work, step: MergeFiles) -> None:
        if await self._find(uid) != step:
            return  # a guest was started before this was known to go on
        lower, upper, rate = step.lower.path, step.upper.path, self._around.merge_bytes_per_second
        await self._around.disks.merges.merge(lower, upper, rate, lambda percent: self._advance(uid, work, percent))
        async with entry.lock:
            await to_end(self._around.disks.merges.take_place, lower, upper)

    async def _merge_live(self, uid: str, entry: Entry, work: Work, step: MergeLive) -> None:
        if await self._find(uid) != step:
            return
        hypervisor, rate = self._around.hypervisor, self._around.merge_bytes_per_second
        await to_end(self._around.disks.merges.begin, step)
        begin = hypervisor.begin_commit(uid, step.target, step.lower.path, step.upper.path, rate)
        await self._follow(uid, work, step.target, asyncio.ensure_future(begin))
        async with entry.lock:
            await recover_merges(self._around, uid, running=(await hypervisor.read(uid)).active)
        if (left := await self._find(uid)) == step:
            raise ConflictError(f"QEMU has not merged layers of disk {left.lower.disk}; it is tried again.")

    async def _abort(self, uid: str, target: str, begin: "asyncio.Future[None] | None") -> None:
        """End the job where it is; if it cannot be told how it ended, that is found out before the next merge."""
        hypervisor = self._around.hypervisor
        if begin is not None:
            await asyncio.wait({begin})
        with suppress(NodeError):
            await hypervisor.abort_commit(uid, target)
            if await hypervisor.find_commit(uid) is None:
                await recover_merges(self._around, uid, running=(await hypervisor.read(uid)).active)

    async def _follow(self, uid: str, work: Work, target: str, begin: "asyncio.Future[None] | None" = None) -> None:
        try:
            if begin is not None:
                await asyncio.shield(begin)
            while (percent := await self._around.hypervisor.read_commit(uid, target)) is not None:
                self._advance(uid, work, percent)
                await asyncio.sleep(_POLL_SECONDS)
        except asyncio.CancelledError:
            await asyncio.shield(self._abort(uid, target, begin))
            raise

    def _advance(self, uid: str, work: Work, percent: float) -> None:
        if percent >= work.percent + STEP:
            work.percent = int(percent)
            self._wake(uid)


def _describe(step: Step) -> str:
    names = " ".join(f"{name} {value.path.name}" for name, value in vars(step).items() if name != "target")
    return f"{type(step).__name__} {names}"
