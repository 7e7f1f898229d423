"""Copies of other machines' disks, made whole: all that a machine takes from one source appear, or none.

Files in work are `<disk>.qcow2.partial`. Once all of them are complete, the mark `clone-<source uid>.json` is written:
from then on they are only given their names, by this process or the next. A copy never names the disk it was made
from; it may name that disk's image.
"""

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from virtfleet_api.machine import Label, MachineDisk
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.errors import InvalidError, PoolFullError
from virtfleet_node.core.layers import SUFFIX
from virtfleet_node.core.stored import ImageFiles, StoredDisk
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.files import PARTIAL, check_real, make_folder, publish, sync_folder, write_whole
from virtfleet_node.storage.pools import Pools

_RESERVE: Final = 0.02
"""Share of a pool that a copy leaves free: a full pool would stop the guest whose disks are copied."""

_FICLONE: Final = 0x40049409
"""ioctl that has two files share their blocks (linux/fs.h), on XFS and btrfs."""

_MARK: Final = "clone-*.json"
_NAMES: Final = TypeAdapter(list[tuple[Label, Label]])

Name = tuple[str, str]
"""Pool and name of a disk."""


class CloneStore:
    """The files of copies in all pools."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def begin(self, uid: str, disks: Iterable[MachineDisk]) -> dict[Name, Path]:
        """Return the file to write for each disk, after removing what an earlier copy has left unfinished."""
        self.remove_leftovers(uid)
        return {
            (disk.pool, disk.name): self._partial(make_folder(self._folder(disk.pool, uid)), disk) for disk in disks
        }

    def finish(self, uid: str, source_uid: str) -> bool:
        """Name the files of a copy that an earlier process has completed; return whether there was one."""
        for pool in self._pools.names():
            mark = _mark(self._folder(pool, uid), source_uid)
            if (names := _read_mark(mark)) is not None:
                self._publish(uid, names)
                mark.unlink()
                return True
        return False

    def commit(self, uid: str, source_uid: str, disks: tuple[MachineDisk, ...]) -> None:
        """Let all disks of a copy appear; their files are complete."""
        for disk in disks:
            _sync(self._partial(self._folder(disk.pool, uid), disk))
        names: list[Name] = [(disk.pool, disk.name) for disk in disks]
        write_whole(_mark(self._folder(disks[0].pool, uid), source_uid), _NAMES.dump_json(names))
        self.finish(uid, source_uid)

    def check(self, disk: MachineDisk, source: StoredDisk) -> None:
        """Refuse a disk that is smaller than what it is copied from: InvalidError."""
        if disk.size_bytes is not None and disk.size_bytes < source.capacity_bytes:
            raise InvalidError(
                f"Disk {disk.name} is smaller ({disk.size_bytes} bytes) than the disk it is copied from "
                f"({source.capacity_bytes} bytes); write a larger size or leave it out."
            )

    def check_room(self, needs: Iterable[tuple[str, Iterable[Path]]]) -> None:
        """Refuse copies into pools, each of as much as its files take, that have no room there: PoolFullError."""
        by_pool: dict[str, int] = {}
        for pool, files in needs:
            by_pool[pool] = by_pool.get(pool, 0) + sum(path.stat().st_blocks * 512 for path in files)
        for pool, needed in by_pool.items():
            if needed > (free := self.room(pool)):
                raise PoolFullError(f"Pool {pool} has {free} bytes free for copies; these need {needed}.")

    def check_left(self, pool: str) -> None:
        """Refuse to go on with copies into a pool that has no room left for them: PoolFullError.

        What QEMU copies may be larger than the files it is read from, where these are compressed.
        """
        if not self.room(pool):
            raise PoolFullError(f"Pool {pool} has no room left for copies: free space in it, or use another.")

    @contextmanager
    def bounded(self, pool: str, target: Path) -> Iterator[int]:
        """Give how many bytes a file that is copied into a pool may have; nothing is left of one that failed.

        Raises:
            PoolFullError: it would have more.
        """
        room = self.room(pool)
        try:
            yield room
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                raise PoolFullError(
                    f"Pool {pool} has {room} bytes free for copies, and {target.name.partition('.')[0]} needs more: "
                    "free space in the pool, or use another."
                ) from None
            raise

    def room(self, pool: str) -> int:
        """Return how many bytes of a pool are free to be written beside what guests write."""
        capacity = next(report.capacity_bytes for report in self._pools.reports() if report.name == pool)
        return max(0, self._pools.free_bytes(pool) - int(capacity * _RESERVE))

    async def copy(
        self,
        source: StoredDisk,
        image: ImageFiles | None,
        disk: MachineDisk,
        target: Path,
        progress: Callable[[float], None],
    ) -> None:
        """Copy a disk that no guest uses. With Linked only what differs from its image is copied.

        `progress` is told the percentage. The file system shares the blocks of both files where it can.

        Raises:
            PoolFullError: the pool has no room.
            InvalidError: qemu-img cannot read the source.
        """
        linked = disk.source.kind == "Disk" and disk.source.clone is Clone.LINKED
        backing = image if linked else None
        shareable = backing == image and not source.layers
        if shareable and await asyncio.to_thread(_share_blocks, source.path, target):
            progress(100)
        else:
            own = (source.path, *source.layers)
            self.check_room([(disk.pool, (*own, image.path) if image and not linked else own)])
            with self.bounded(disk.pool, target) as room:
                await self._convert(source, target, backing, progress, room)
        await self.grow(disk, target, source.capacity_bytes)

    async def _convert(
        self,
        source: StoredDisk,
        target: Path,
        backing: ImageFiles | None,
        progress: Callable[[float], None],
        room: int,
    ) -> None:
        if backing is not None and source.layers:
            # convert would take what is in layers between for the image's (seen with QEMU 7.2)
            await qemu_img.create_overlay(target, source.path, "qcow2", source.capacity_bytes)
            await qemu_img.rebase(target, backing, progress, room)
        else:
            await qemu_img.copy_disk(source.path, target, backing, progress, room)

    async def make_targets(self, sources: Mapping[Name, StoredDisk], targets: Mapping[Name, Path]) -> None:
        """Make the empty files that QEMU copies a running guest's disks into, each as large as its source."""
        for name, path in targets.items():
            await qemu_img.create_blank(path, sources[name].capacity_bytes)

    async def wait_closed(self, target: Path) -> None:
        """Wait until QEMU has let a finished copy go.

        Its job ends shortly before the file is closed, which writes the last tables (seen with libvirt 9.0).

        Raises:
            InvalidError: the file is not in order.
            UnavailableError: it is still in use after some seconds.
        """
        await qemu_img.wait_unwritten(target)

    async def grow(self, disk: MachineDisk, target: Path, capacity_bytes: int) -> None:
        """Make a finished copy as large as its disk shall be."""
        if disk.size_bytes is not None and disk.size_bytes > capacity_bytes:
            await qemu_img.grow(target, disk.size_bytes)

    def remove_leftovers(self, uid: str) -> None:
        """Remove unfinished work of a machine, and its folder if nothing else is in it."""
        for pool in self._pools.names():
            folder = self._folder(pool, uid)
            if not folder.is_dir() or folder.is_symlink():
                continue
            for leftover in (*folder.glob(f"*{PARTIAL}"), *folder.glob(_MARK)):
                leftover.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
            sync_folder(folder.parent)

    def _publish(self, uid: str, names: list[Name]) -> None:
        for pool, name in names:
            folder = self._folder(pool, uid)
            check_real(folder)
            final = folder / f"{name}{SUFFIX}"
            partial = final.with_name(final.name + PARTIAL)
            if partial.exists() and not final.exists():
                publish(partial, final)

    def _folder(self, pool: str, uid: str) -> Path:
        return self._pools.folder(pool, "disks") / uid

    def _partial(self, folder: Path, disk: MachineDisk) -> Path:
        return folder / f"{disk.name}{SUFFIX}{PARTIAL}"


def _mark(folder: Path, source_uid: str) -> Path:
    return folder / f"clone-{source_uid}.json"


def _read_mark(path: Path) -> list[Name] | None:
    try:
        return _NAMES.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _share_blocks(source: Path, target: Path) -> bool:
    """Have the target share all blocks of the source, at once; return whether the file system can."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with source.open("rb") as from_file, os.fdopen(os.open(target, flags, 0o644), "wb") as to_file:
        try:
            fcntl.ioctl(to_file.fileno(), _FICLONE, from_file.fileno())
        except OSError:  # another file system, or one that cannot
            target.unlink()
            return False
    return True
