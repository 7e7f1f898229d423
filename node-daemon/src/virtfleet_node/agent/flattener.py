"""Make a disk independent of files of others: QEMU pulls in what it lies on, or qemu-img copies the disk whole."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from virtfleet_node.agent.entry import Work
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.works import STEP, to_end
from virtfleet_node.core.actions import FlattenDisk
from virtfleet_node.core.errors import ConflictError, NodeError
from virtfleet_node.core.stored import ImageFiles, StoredDisk

_POLL_SECONDS: Final = 0.5


class Flattener:
    """Flattens one disk at a time for each machine."""

    def __init__(self, around: Surroundings, wake: Callable[[str], None]) -> None:
        self._around = around
        self._wake = wake

    async def flatten(self, uid: str, work: Work, action: FlattenDisk) -> None:
        """Do so; what a crash or an end of the guest leaves is a disk as before, and the rest is done anew.

        Raises:
            ConflictError: the pool has no room, or QEMU refuses.
        """
        found = await self._find(uid, action)
        if found is None:
            return
        disk, image = found
        below = (*disk.layers, image.path) if image else disk.layers
        await to_end(self._around.disks.remove_partial, uid, action.pool, action.name)
        if action.target is None:
            self._around.disks.check_room(action.pool, (disk.path, *below))
            await self._copy(uid, work, disk)
        else:
            self._around.disks.check_room(action.pool, below)
            await self._pull(uid, work, action.target)
        if await self._find(uid, action) is not None:
            raise ConflictError("The disk still needs files of others; it is tried again.")

    async def _copy(self, uid: str, work: Work, disk: StoredDisk) -> None:
        try:
            async with self._around.layer_use.using((disk,)):
                await self._around.disks.copy_whole(disk, lambda percent: self._advance(uid, work, percent))
            await to_end(self._around.disks.replace_disk, uid, disk.pool, disk.name)
        finally:
            await to_end(self._around.disks.remove_partial, uid, disk.pool, disk.name)

    async def _pull(self, uid: str, work: Work, target: str) -> None:
        hypervisor = self._around.hypervisor
        try:
            await hypervisor.begin_pull(uid, target)
            while (percent := await hypervisor.read_pull(uid, target)) is not None:
                self._advance(uid, work, percent)
                await asyncio.sleep(_POLL_SECONDS)
        except asyncio.CancelledError:
            with suppress(NodeError):  # what was pulled stays in the disk, and the guest goes on
                await asyncio.shield(hypervisor.abort_pull(uid, target))
            raise

    async def _find(self, uid: str, action: FlattenDisk) -> tuple[StoredDisk, ImageFiles | None] | None:
        """Return the disk and its image, None when it needs no file of others."""
        disks = await asyncio.to_thread(self._around.disks.read_disks, uid)
        disk = next((d for d in disks if (d.pool, d.name) == (action.pool, action.name)), None)
        if disk is None or not disk.needs_others:
            return None
        if disk.backing_image_uid is None:
            return disk, None
        image = self._around.images.files(disk.backing_image_uid)
        if image is None:
            raise ConflictError(f"Image {disk.backing_image_uid} is not ready on this node.")
        return disk, image

    def _advance(self, uid: str, work: Work, percent: float) -> None:
        if percent >= work.percent + STEP:
            work.percent = int(percent)
            self._wake(uid)
