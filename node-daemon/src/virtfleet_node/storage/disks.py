"""The disks of machines, each the highest of its layers; the first is <pool>/disks/<machine uid>/<name>.qcow2."""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import BlankSource, ImageDiskSource, MachineDisk, RetainedSource, SnapshotDiskSource
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.errors import ConflictError, InvalidError, NodeError, PoolFullError
from virtfleet_node.core.layers import Layer
from virtfleet_node.core.stored import ImageFiles, StoredDisk
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.captures import CaptureStore
from virtfleet_node.storage.clones import CloneStore
from virtfleet_node.storage.files import PARTIAL, check_real, make_folder, publish, subfolders, sync_folder
from virtfleet_node.storage.layers import LayerStore
from virtfleet_node.storage.merges import MergeStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.reflink import clone_file
from virtfleet_node.storage.restores import RestoreStore
from virtfleet_node.storage.snapshots import SnapshotStore
from virtfleet_node.storage.wipe import wipe_file


class DiskStore:
    """The disks in all pools."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self.clones = CloneStore(pools)
        """Makes disks from disks of other machines."""
        self.snapshots = SnapshotStore(pools)
        self.layers = LayerStore(pools, self.snapshots)
        self.restores = RestoreStore(pools, self.snapshots, self.layers, self.clones)
        self.captures = CaptureStore(self.snapshots, self.layers, self.clones)
        self.merges = MergeStore(pools, self.layers, self.snapshots, self.clones)
        self._making: Counter[tuple[str, str]] = Counter()
        """Image and machine of the disks that are being made."""

    def read_disks(self, uid: str) -> tuple[StoredDisk, ...]:
        """Return the disks that exist of a machine, in any pool, by name."""
        found = (self._stored(tip) for tip in self.layers.tips(uid).values())
        return tuple(sorted(found, key=lambda disk: (disk.name, disk.pool)))

    def read_captured(self, snapshot_uid: str, name: str) -> StoredDisk | None:
        """Return a disk as a snapshot has it; None when the node has no such snapshot, or its file is gone."""
        kept = self.snapshots.get(snapshot_uid)
        disks = kept.captured.disks if kept and kept.captured else ()
        captured = next((disk for disk in disks if disk.name == name), None)
        if kept is None or captured is None:
            return None
        layer = self.layers.read(self.snapshots.layer(kept.document.machine_uid, captured))
        return replace(self._stored(layer), capacity_bytes=captured.capacity_bytes) if layer else None

    def _find(self, uid: str, pool: str, name: str) -> StoredDisk | None:
        tip = self.layers.tips(uid).get((uid, pool, name))
        return self._stored(tip) if tip else None

    def _stored(self, tip: Layer) -> StoredDisk:
        """Follow a disk's layers down to its image."""
        layers: list[Path] = []
        bottom = tip
        while bottom.below is not None and bottom.below not in layers:
            layers.append(bottom.below)
            lower = self.layers.read(bottom.below)
            if lower is None:
                break  # QEMU refuses the disk, and names the file
            bottom = lower
        return StoredDisk(
            pool=tip.pool,
            name=tip.disk,
            path=tip.path,
            format=ImageFormat.QCOW2,
            capacity_bytes=tip.capacity_bytes,
            backing_image_uid=bottom.image_uid,
            layers=tuple(layers),
            allocated_bytes=tip.allocated_bytes,
        )

    def owners(self) -> frozenset[str]:
        """Return the UIDs of machines that have a disk here, or layers of one that are still needed."""
        return frozenset(
            folder.name for pool in self._pools.names() for folder in subfolders(self._pools.folder(pool, "disks"))
        )

    def users(self, image_uid: str) -> tuple[str, ...]:
        """Return the UIDs of machines with a layer that is backed by an image, from the files themselves."""
        backed = {layer.machine_uid for layer in self.layers.read_all() if layer.image_uid == image_uid}
        making = {machine for image, machine in self._making if image == image_uid}
        return tuple(sorted(backed | making))

    async def prepare_disk(self, uid: str, disk: MachineDisk, image: ImageFiles | None) -> StoredDisk:
        """Make the disk unless it is there, and let it appear only when it is whole.

        Raises:
            InvalidError: the node has no such pool, or the size does not fit the image.
            PoolFullError: the pool takes no new disk of this size, or has no room for a full copy.
            ConflictError: its file system fails.
        """
        with _told_of(disk):
            return await self._prepare(uid, disk, image)

    async def _prepare(self, uid: str, disk: MachineDisk, image: ImageFiles | None) -> StoredDisk:
        folder = self._pools.folder(disk.pool, "disks") / uid
        if os.path.lexists(folder):
            check_real(folder)
        there = self._find(uid, disk.pool, disk.name)
        if there is None:
            self.layers.remove_unneeded(uid)  # what the removal of a disk of that name has left
            if self.layers.has_unreadable(uid, disk.pool, disk.name):
                raise InvalidError(f"Disk {disk.name} is not a qcow2 file any more; an administrator must look at it.")
        final = self.layers.next_path(uid, disk.pool, disk.name)
        if there is None and isinstance(disk.source, RetainedSource):
            await asyncio.to_thread(self._take_over, disk, disk.source, final)
            await self.grow_disk(uid, disk)
        elif there is None:
            partial = final.with_name(final.name + PARTIAL)
            size = disk.size_bytes or (image.virtual_size_bytes if image else self._captured_bytes(disk))
            with self._counted(uid, image), self._pools.commit(disk.pool, size), _removed_on_failure(partial):
                make_folder(folder)
                partial.unlink(missing_ok=True)
                await self._make(partial, disk, image)
                await asyncio.to_thread(publish, partial, final)
        stored = self._find(uid, disk.pool, disk.name)
        if stored is None:
            raise InvalidError(f"Disk {disk.name} is not a qcow2 file any more; an administrator must look at it.")
        return stored

    async def grow_disk(self, uid: str, disk: MachineDisk) -> None:
        """Make a disk that no guest uses as large as its document says, if it is smaller.

        Raises:
            InvalidError: there is no such disk.
        """
        stored = self._find(uid, disk.pool, disk.name)
        if stored is None:
            raise InvalidError(f"There is no disk {disk.name} to grow.")
        if disk.size_bytes is not None and stored.capacity_bytes < disk.size_bytes:
            with _told_of(disk):
                await qemu_img.grow(stored.path, disk.size_bytes)

    def check_room(self, pool: str, files: Iterable[Path]) -> None:
        """Refuse what needs as much of a pool as these files take, when that is not there: PoolFullError."""
        self.clones.check_room([(pool, files)])

    async def copy_whole(self, disk: StoredDisk, progress: Callable[[float], None]) -> None:
        """Copy a disk that no guest uses, with its image's content, into a file beside it.

        `progress` is told the percentage.
        """
        target = disk.path.with_name(disk.path.name + PARTIAL)
        with self.clones.bounded(disk.pool, target) as room:
            await qemu_img.copy_disk(disk.path, target, None, progress, room)

    def replace_disk(self, uid: str, pool: str, name: str) -> None:
        """Put that file in the disk's place, at once and durably."""
        stored = self._find(uid, pool, name)
        if stored is not None:
            check_real(stored.path.parent)
            publish(stored.path.with_name(stored.path.name + PARTIAL), stored.path)
            self.layers.remove_unneeded(uid)

    def remove_partial(self, uid: str, pool: str, name: str) -> None:
        """Remove that file."""
        stored = self._find(uid, pool, name)
        if stored is not None:
            check_real(stored.path.parent)
            stored.path.with_name(stored.path.name + PARTIAL).unlink(missing_ok=True)

    def wipe_disk(
        self, uid: str, pool: str, name: str, progress: Callable[[float], None], stopped: Callable[[], bool]
    ) -> None:
        """Overwrite the disk if it is there, then remove it, unless it is stopped before. Blocks.

        Layers of it that something else needs stay.
        """
        if all(wipe_file(layer.path, progress, stopped) for layer in self.layers.only_for(uid, pool, name)):
            self.remove_disk(uid, pool, name)

    def remove_leftovers(self, uid: str) -> None:
        """Remove unfinished work of a machine that is to go."""
        self.clones.remove_leftovers(uid)

    def remove_disk(self, uid: str, pool: str, name: str) -> None:
        """Remove the disk if it is there, and the machine's folder with its last disk.

        Layers of it that a snapshot names, or that other disks lie on, stay until nobody needs them.
        """
        folder = self._pools.folder(pool, "disks") / uid
        if not folder.exists():
            return
        check_real(folder)
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()
        if (tip := self.layers.tips(uid).get((uid, pool, name))) is not None:
            self._pools.release(pool, tip.capacity_bytes)
            self.layers.mark_removed(tip.key, tip.number)
        self.layers.remove_unneeded(uid)

    @contextmanager
    def _counted(self, uid: str, image: ImageFiles | None) -> Iterator[None]:
        """Count the machine as a user of the image while its disk is being made: it must not be removed meanwhile."""
        key = (image.path.parent.name if image else "", uid)
        self._making[key] += 1
        try:
            yield
        finally:
            self._making -= Counter([key])

    def _take_over(self, disk: MachineDisk, source: RetainedSource, final: Path) -> None:
        """Give a disk that a machine has left behind to another, by one rename: it is in one place or the other."""
        left = self._pools.folder(disk.pool, "disks") / source.machine_uid
        taken = self.layers.tips(source.machine_uid).get((source.machine_uid, disk.pool, source.name))
        if taken is None:
            raise ConflictError(
                f"Disk {disk.name} was to be taken over, and there is none in pool {disk.pool}; "
                "an administrator must look at it."
            )
        make_folder(final.parent)
        # What it lies on stays where it is, as long as it is needed, and is no disk of its own from now on.
        self.layers.mark_removed(taken.key, taken.number - 1)
        taken.path.rename(final)
        sync_folder(final.parent)
        sync_folder(left)
        self.layers.remove_unneeded(source.machine_uid)

    async def _make(self, partial: Path, disk: MachineDisk, image: ImageFiles | None) -> None:
        if isinstance(disk.source, BlankSource):
            if disk.size_bytes is None:
                raise InvalidError(f"Disk {disk.name} is blank and has no size; write one, such as size: 10Gi.")
            await qemu_img.create_blank(partial, disk.size_bytes)
            return
        if isinstance(disk.source, SnapshotDiskSource):
            await self._make_layer(partial, disk, disk.source)
            return
        if image is None or not isinstance(disk.source, ImageDiskSource):
            raise ConflictError(
                f"Disk {disk.name} is not in pool {disk.pool}, or its image is gone; an administrator must look at it."
            )
        size = disk.size_bytes or image.virtual_size_bytes
        if size < image.virtual_size_bytes:
            raise InvalidError(
                f"Disk {disk.name} is smaller ({size} bytes) than its image ({image.virtual_size_bytes} bytes); "
                "write a larger size or leave it out."
            )
        if disk.source.clone == Clone.LINKED:
            await qemu_img.create_overlay(partial, image.path, image.format, size)
        else:
            await self._copy(partial, disk, image, size)

    def _captured_bytes(self, disk: MachineDisk) -> int:
        found = self._find_captured(disk, disk.source) if isinstance(disk.source, SnapshotDiskSource) else None
        return found.capacity_bytes if found else 0

    async def _make_layer(self, partial: Path, disk: MachineDisk, source: SnapshotDiskSource) -> None:
        """Make a disk above a snapshot's, as large as that: memory of the snapshot fits no other size."""
        found = self._find_captured(disk, source)
        if found is None:
            raise ConflictError(
                f"Disk {disk.name} is made from disk {source.name} of snapshot {source.snapshot_uid}, which this node "
                f"does not have in pool {disk.pool}."
            )
        if disk.size_bytes is not None and disk.size_bytes < found.capacity_bytes:
            raise InvalidError(
                f"Disk {disk.name} is smaller ({disk.size_bytes} bytes) than in its snapshot ({found.capacity_bytes} "
                "bytes); write a larger size or leave it out."
            )
        await qemu_img.create_overlay(partial, found.path, "qcow2", found.capacity_bytes)

    def _find_captured(self, disk: MachineDisk, source: SnapshotDiskSource) -> StoredDisk | None:
        """Return the snapshot's disk that a disk shall lie on, which is in the same pool."""
        found = self.read_captured(source.snapshot_uid, source.name)
        return found if found and found.pool == disk.pool else None

    async def _copy(self, partial: Path, disk: MachineDisk, image: ImageFiles, size: int) -> None:
        if image.format is ImageFormat.QCOW2 and await asyncio.to_thread(clone_file, image.path, partial):
            if size > image.virtual_size_bytes:
                await qemu_img.grow(partial, size)
            return
        self.check_room(disk.pool, (image.path,))
        with self.clones.bounded(disk.pool, partial) as room:
            await qemu_img.copy_image(image.path, image.format, partial, room)
        if size > image.virtual_size_bytes:
            await qemu_img.grow(partial, size)


@contextmanager
def _told_of(disk: MachineDisk) -> Iterator[None]:
    """Turn what a file system refuses into a sentence with the names that users know: PoolFullError, ConflictError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise PoolFullError(
                f"Pool {disk.pool} is full: free space in it, or use another for {disk.name}."
            ) from None
        raise ConflictError(f"Pool {disk.pool} fails with disk {disk.name}: {error.strerror}.") from None


@contextmanager
def _removed_on_failure(partial: Path) -> Iterator[None]:
    """Give back the space of a disk that could not be made."""
    try:
        yield
    except (NodeError, OSError):
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # it holds other disks
            partial.parent.rmdir()
        raise
