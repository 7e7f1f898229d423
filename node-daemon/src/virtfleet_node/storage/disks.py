"""The disks of machines: <pool>/disks/<machine uid>/<name>.qcow2."""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import BlankSource, ImageDiskSource, MachineDisk, RetainedSource
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.errors import ConflictError, InvalidError, NodeError, PoolFullError
from virtfleet_node.core.qcow2 import HEADER_BYTES, UnsafeImageError, parse_header
from virtfleet_node.core.stored import ImageFiles, StoredDisk
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.clones import SUFFIX as _SUFFIX
from virtfleet_node.storage.clones import CloneStore
from virtfleet_node.storage.files import PARTIAL, check_real, make_folder, publish, subfolders, sync_folder
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.reflink import clone_file
from virtfleet_node.storage.wipe import wipe_file

_BLOCK = 512
"""Bytes that stat(2) counts st_blocks in, whatever the file system's own block is."""


class DiskStore:
    """The disks in all pools."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self.clones = CloneStore(pools)
        """Makes disks from disks of other machines."""
        self._making: Counter[tuple[str, str]] = Counter()
        """Image and machine of the disks that are being made."""

    def read_disks(self, uid: str) -> tuple[StoredDisk, ...]:
        """Return the disks that exist of a machine, in any pool, by name."""
        found = (
            disk
            for pool in self._pools.names()
            for path in self._files(pool, uid)
            if (disk := _read(pool, path)) is not None
        )
        return tuple(sorted(found, key=lambda disk: (disk.name, disk.pool)))

    def owners(self) -> frozenset[str]:
        """Return the UIDs of machines that have a disk here."""
        return frozenset(
            folder.name for pool in self._pools.names() for folder in subfolders(self._pools.folder(pool, "disks"))
        )

    def users(self, image_uid: str) -> tuple[str, ...]:
        """Return the UIDs of machines with a disk that is backed by an image, from the files themselves."""
        backed = {uid for uid in self.owners() if any(d.backing_image_uid == image_uid for d in self.read_disks(uid))}
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
        final = folder / f"{disk.name}{_SUFFIX}"
        if not final.exists() and isinstance(disk.source, RetainedSource):
            await asyncio.to_thread(self._take_over, disk, disk.source, final)
            await self.grow_disk(uid, disk)
        elif not final.exists():
            partial = final.with_name(final.name + PARTIAL)
            size = disk.size_bytes or (image.virtual_size_bytes if image else 0)
            with self._counted(uid, image), self._pools.commit(disk.pool, size), _removed_on_failure(partial):
                make_folder(folder)
                partial.unlink(missing_ok=True)
                await self._make(partial, disk, image)
                await asyncio.to_thread(publish, partial, final)
        stored = _read(disk.pool, final)
        if stored is None:
            raise InvalidError(f"Disk {disk.name} is not a qcow2 file any more; an administrator must look at it.")
        return stored

    async def grow_disk(self, uid: str, disk: MachineDisk) -> None:
        """Make a disk that no guest uses as large as its document says, if it is smaller.

        Raises:
            InvalidError: there is no such disk.
        """
        folder = self._pools.folder(disk.pool, "disks") / uid
        path = next((p for p in self._files(disk.pool, uid) if p == folder / f"{disk.name}{_SUFFIX}"), None)
        stored = _read(disk.pool, path) if path else None
        if path is None or stored is None:
            raise InvalidError(f"There is no disk {disk.name} to grow.")
        if disk.size_bytes is not None and stored.capacity_bytes < disk.size_bytes:
            with _told_of(disk):
                await qemu_img.grow(path, disk.size_bytes)

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
        folder = self._pools.folder(pool, "disks") / uid
        check_real(folder)
        final = folder / f"{name}{_SUFFIX}"
        publish(final.with_name(final.name + PARTIAL), final)

    def remove_partial(self, uid: str, pool: str, name: str) -> None:
        """Remove that file."""
        folder = self._pools.folder(pool, "disks") / uid
        check_real(folder)
        (folder / f"{name}{_SUFFIX}{PARTIAL}").unlink(missing_ok=True)

    def wipe_disk(
        self, uid: str, pool: str, name: str, progress: Callable[[float], None], stopped: Callable[[], bool]
    ) -> None:
        """Overwrite the disk if it is there, then remove it, unless it is stopped before. Blocks."""
        path = next((p for p in self._files(pool, uid) if p.name == f"{name}{_SUFFIX}"), None)
        if path is None or wipe_file(path, progress, stopped):
            self.remove_disk(uid, pool, name)

    def remove_leftovers(self, uid: str) -> None:
        """Remove unfinished work of a machine that is to go."""
        self.clones.remove_leftovers(uid)

    def remove_disk(self, uid: str, pool: str, name: str) -> None:
        """Remove the disk if it is there, and the machine's folder with its last disk."""
        folder = self._pools.folder(pool, "disks") / uid
        if not folder.exists():
            return
        check_real(folder)
        path = folder / f"{name}{_SUFFIX}"
        if (stored := _read(pool, path)) is not None:
            self._pools.release(pool, stored.capacity_bytes)
        path.unlink(missing_ok=True)
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
        sync_folder(folder.parent)

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
        file = next(
            (p for p in self._files(disk.pool, source.machine_uid) if p.name == f"{source.name}{_SUFFIX}"), None
        )
        if file is None:
            raise ConflictError(
                f"Disk {disk.name} was to be taken over, and there is none in pool {disk.pool}; "
                "an administrator must look at it."
            )
        make_folder(final.parent)
        file.rename(final)
        sync_folder(final.parent)
        sync_folder(left)
        with suppress(OSError):  # it holds other disks
            left.rmdir()
        sync_folder(left.parent)

    async def _make(self, partial: Path, disk: MachineDisk, image: ImageFiles | None) -> None:
        if isinstance(disk.source, BlankSource):
            if disk.size_bytes is None:
                raise InvalidError(f"Disk {disk.name} is blank and has no size; write one, such as size: 10Gi.")
            await qemu_img.create_blank(partial, disk.size_bytes)
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

    def _files(self, pool: str, uid: str) -> tuple[Path, ...]:
        folder = self._pools.folder(pool, "disks") / uid
        if folder.is_symlink() or not folder.is_dir():
            return ()
        return tuple(path for path in folder.glob(f"*{_SUFFIX}") if path.is_file() and not path.is_symlink())


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


def _read(pool: str, path: Path) -> StoredDisk | None:
    """Return what the header of a disk says; None when it is no disk. A guest cannot write its own disk's header."""
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(HEADER_BYTES))
            blocks = os.fstat(file.fileno()).st_blocks
    except (FileNotFoundError, UnsafeImageError):
        return None
    return StoredDisk(
        pool=pool,
        name=path.name.removesuffix(_SUFFIX),
        path=path,
        format=ImageFormat.QCOW2,
        capacity_bytes=header.virtual_size_bytes,
        backing_image_uid=Path(header.backing_file).parent.name if header.backing_file else None,
        allocated_bytes=blocks * _BLOCK,
    )
