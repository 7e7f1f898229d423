"""The files of disks' layers: <pool>/disks/<machine uid>/<disk>.qcow2, <disk>.1.qcow2 and so on.

A disk that was removed, while what lies on its layers was not, is marked by the file `<disk>.<n>.removed` with its
highest number. A disk that is made under the same name afterwards has a higher one.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.layers import REMOVED, Key, Layer, Removed, build_name, is_removed, parse_name, tips, unneeded
from virtfleet_node.core.qcow2 import HEADER_BYTES, UnsafeImageError, parse_header
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.files import PARTIAL, check_real, make_folder, publish, subfolders, sync_folder
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.snapshots import SnapshotStore

_LOG = logging.getLogger(__name__)

_BLOCK: Final = 512
"""Bytes that stat(2) counts st_blocks in, whatever the file system's own block is."""

MERGING: Final = ".merging"
"""Suffix of the file that says which layers of a disk QEMU merges."""


class LayerStore:
    """The layers in all pools."""

    def __init__(self, pools: Pools, snapshots: SnapshotStore) -> None:
        self._pools = pools
        self._snapshots = snapshots
        self._held: dict[str, frozenset[Path]] = {}
        """By machine, the layers that were its disks before a restore that is under way."""
        self.changing = asyncio.Lock()
        """Held while a layer is put on another, and while one is removed that a snapshot has named until now."""
        self._removing = threading.RLock()
        """Held while what nobody needs is looked for and removed: disks of several machines go at once."""

    def read_all(self) -> tuple[Layer, ...]:
        """Return every layer of every machine."""
        return tuple(
            layer
            for pool in self._pools.names()
            for folder in subfolders(self._pools.folder(pool, "disks"))
            for layer in _read_folder(pool, folder)
        )

    def of_machine(self, uid: str) -> tuple[Layer, ...]:
        """Return the layers in a machine's folders."""
        return tuple(layer for pool in self._pools.names() for layer in _read_folder(pool, self._folder(pool, uid)))

    def tips(self, uid: str) -> dict[Key, Layer]:
        """Return the layer that each disk of a machine is now."""
        return tips(self.of_machine(uid), self._removed(uid))

    def read(self, path: Path) -> Layer | None:
        """Return one layer by its path, None when there is none."""
        pools = (name for name in self._pools.names() if path.is_relative_to(self._pools.folder(name, "disks")))
        return next((_read(pool, path) for pool in pools), None)

    def hold(self, uid: str, paths: Iterable[Path]) -> None:
        """Keep these layers of a machine, whoever needs them, until others are named; those of a restore."""
        self._held[uid] = frozenset(paths)
        if not self._held[uid]:
            del self._held[uid]

    def named(self) -> frozenset[Path]:
        """Return the layers that must stay as they are: those that snapshots name, and those that are held."""
        return self._snapshots.named().union(*self._held.values())

    def numbers(self, uid: str, pool: str, disk: str) -> dict[str, int]:
        """Return the numbers of a disk's layers by the names of their files, those that cannot be read included."""
        named = ((path.name, parse_name(path.name)) for path in self._folder(pool, uid).glob("*.qcow2"))
        return {file: name[1] for file, name in named if name is not None and name[0] == disk}

    def next_path(self, uid: str, pool: str, disk: str) -> Path:
        """Return the path of a new layer of a disk, which becomes the disk when it appears."""
        removed = self._removed(uid).get((uid, pool, disk), -1)
        highest = max((*self.numbers(uid, pool, disk).values(), removed))
        return self._folder(pool, uid) / build_name(disk, highest + 1)

    def has_unreadable(self, uid: str, pool: str, disk: str) -> bool:
        """Tell whether there is a file of a disk, one that was not removed, that is no layer."""
        removed = self._removed(uid).get((uid, pool, disk), -1)
        files = (file for file, number in self.numbers(uid, pool, disk).items() if number > removed)
        return any(self.read(self._folder(pool, uid) / file) is None for file in files)

    async def make(self, path: Path, below: Path, size_bytes: int | None = None) -> None:
        """Make an empty layer on one that is there, unless it is there already; it appears whole and durably.

        Raises:
            ConflictError: there is nothing at `below`; it may have been merged just now, and has another name.
            OSError: the file system is full.
        """
        async with self.changing:
            if not path.exists():
                await self._make(path, below, size_bytes)

    async def _make(self, path: Path, below: Path, size_bytes: int | None) -> None:
        lower = self.read(below)
        if lower is None:
            raise ConflictError(f"There is no layer {below.name} any more for {path.name} to lie on.")
        make_folder(path.parent)
        partial = path.with_name(path.name + PARTIAL)
        partial.unlink(missing_ok=True)
        try:
            await qemu_img.create_overlay(partial, below, "qcow2", size_bytes or lower.capacity_bytes)
            publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def only_for(self, uid: str, pool: str, disk: str) -> tuple[Layer, ...]:
        """Return the layers of a disk that nobody needs but the disk itself; none when it is not there."""
        key = (uid, pool, disk)
        tip = self.tips(uid).get(key)
        if tip is None:
            return ()
        gone = unneeded(self.read_all(), self.named(), {**self.all_removed(), key: tip.number})
        return tuple(layer for layer in gone if layer.key == key)

    def mark_removed(self, key: Key, number: int) -> None:
        """Have a disk up to this layer be removed although layers of it are still needed; durable when this returns.

        The mark is an empty file, which a full file system takes as well.
        """
        if number < 0:
            return
        uid, pool, disk = key
        folder = self._folder(pool, uid)
        with self._removing:
            check_real(folder)
            (folder / build_name(disk, number, REMOVED)).touch(mode=0o600)
            sync_folder(folder)

    def remove(self, path: Path) -> None:
        """Remove a layer that nothing lies on, if it is there."""
        with self._removing:
            if path.parent.exists():
                check_real(path.parent)
                path.unlink(missing_ok=True)
                sync_folder(path.parent)

    def remove_unneeded(self, uid: str) -> None:
        """Remove all layers that nobody needs any more, and the folder of this machine with its last one.

        None while there is a snapshot that cannot be read: nobody knows what it needs.
        """
        if self._snapshots.has_unreadable():
            _LOG.warning("Keeping all layers, as a snapshot cannot be read; an administrator must look at it")
            return
        with self._removing:
            removed = self.all_removed()
            gone = unneeded(self.read_all(), self.named(), removed)
            for layer in gone:
                self.remove(layer.path)
            # Marks that have outlived their layers, as the daemon was killed in between, go as well.
            for owner in {uid, *(layer.machine_uid for layer in gone), *(owner for owner, _, _ in removed)}:
                self.tidy(owner)

    def tidy(self, uid: str) -> None:
        """Remove the marks of disks that have no layer any more, and folders with nothing in them."""
        with self._removing:
            self._tidy(uid)

    def _tidy(self, uid: str) -> None:
        layers = self.of_machine(uid)
        for pool in self._pools.names():
            folder = self._folder(pool, uid)
            if folder.is_symlink() or not folder.is_dir():
                continue
            for mark, disk, number in _marks(folder):
                if not any(is_removed(layer, {(uid, pool, disk): number}) for layer in layers):
                    mark.unlink()
            for mark in folder.glob(f"*{MERGING}"):
                if not any((layer.pool, layer.disk) == (pool, mark.stem) for layer in layers):
                    mark.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
                sync_folder(folder.parent)

    def is_removed(self, path: Path) -> bool:
        """Tell whether a layer is of a disk that was removed."""
        name = parse_name(path.name)
        return name is not None and any(
            disk == name[0] and number >= name[1] for _, disk, number in _marks(path.parent)
        )

    def all_removed(self) -> Removed:
        """Return the disks that were removed, while layers of theirs stay."""
        folders = (subfolders(self._pools.folder(pool, "disks")) for pool in self._pools.names())
        found: dict[Key, int] = {}
        for uid in {folder.name for some in folders for folder in some}:
            found.update(self._removed(uid))
        return found

    def _removed(self, uid: str) -> Removed:
        found: dict[Key, int] = {}
        for pool in self._pools.names():
            for _, disk, number in _marks(self._folder(pool, uid)):
                found[uid, pool, disk] = max(number, found.get((uid, pool, disk), number))
        return found

    def _folder(self, pool: str, uid: str) -> Path:
        return self._pools.folder(pool, "disks") / uid


def _marks(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Yield the marks of removed disks in a machine's folder, each with the disk and the highest of its numbers."""
    for mark in folder.glob(f"*{REMOVED}"):
        if (name := parse_name(mark.name, REMOVED)) is not None:
            yield mark, *name


def _read_folder(pool: str, folder: Path) -> Iterator[Layer]:
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.glob("*.qcow2"):
        if path.is_file() and not path.is_symlink() and (layer := _read(pool, path)) is not None:
            yield layer


def _read(pool: str, path: Path) -> Layer | None:
    """Return what the header of a layer says; None when it is none. A guest cannot write its own disk's header."""
    name = parse_name(path.name)
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(HEADER_BYTES))
            blocks = os.fstat(file.fileno()).st_blocks
    except (FileNotFoundError, UnsafeImageError):
        return None
    if name is None:
        return None
    backing = Path(header.backing_file) if header.backing_file else None
    is_layer = backing is not None and backing.parent.parent.name == path.parent.parent.name
    return Layer(
        pool=pool,
        machine_uid=path.parent.name,
        disk=name[0],
        number=name[1],
        path=path,
        capacity_bytes=header.virtual_size_bytes,
        allocated_bytes=blocks * _BLOCK,
        below=backing if is_layer else None,
        image_uid=backing.parent.name if backing is not None and not is_layer else None,
    )
