"""The files of disks' layers: <pool>/disks/<machine uid>/<disk>.qcow2, <disk>.1.qcow2 and so on.

A disk that was removed, while what lies on its layers was not, is marked by the file `<disk>.removed`.
"""

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.layers import Key, Layer, build_name, parse_name, tips, unneeded
from virtfleet_node.core.qcow2 import HEADER_BYTES, UnsafeImageError, parse_header
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.files import PARTIAL, check_real, make_folder, publish, subfolders, sync_folder
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.snapshots import SnapshotStore

_LOG = logging.getLogger(__name__)

_BLOCK: Final = 512
"""Bytes that stat(2) counts st_blocks in, whatever the file system's own block is."""

_REMOVED: Final = ".removed"

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
        """Return the numbers of a disk's layers by the names of their files."""
        layers = (layer for layer in self.of_machine(uid) if (layer.pool, layer.disk) == (pool, disk))
        return {layer.path.name: layer.number for layer in layers}

    def next_path(self, uid: str, pool: str, disk: str) -> Path:
        """Return the path of a new layer of a disk, which becomes the disk when it appears."""
        highest = max(self.numbers(uid, pool, disk).values(), default=-1)
        return self._folder(pool, uid) / build_name(disk, highest + 1)

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
        if key not in self.tips(uid):
            return ()
        gone = unneeded(self.read_all(), self.named(), self.all_removed() | {key})
        return tuple(layer for layer in gone if layer.key == key)

    def mark_removed(self, uid: str, pool: str, disk: str) -> None:
        """Have a disk be removed although layers of it are still needed; durable when this returns."""
        folder = self._folder(pool, uid)
        check_real(folder)
        (folder / f"{disk}{_REMOVED}").touch(mode=0o600)
        sync_folder(folder)

    def remove(self, path: Path) -> None:
        """Remove a layer that nothing lies on, if it is there."""
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
        gone = unneeded(self.read_all(), self.named(), self.all_removed())
        for layer in gone:
            self.remove(layer.path)
        for owner in {uid, *(layer.machine_uid for layer in gone)}:
            self.tidy(owner)

    def tidy(self, uid: str) -> None:
        """Remove the marks of disks that have no layer any more, and folders with nothing in them."""
        left = {(layer.pool, layer.disk) for layer in self.of_machine(uid)}
        for pool in self._pools.names():
            folder = self._folder(pool, uid)
            if folder.is_symlink() or not folder.is_dir():
                continue
            for mark in (*folder.glob(f"*{_REMOVED}"), *folder.glob(f"*{MERGING}")):
                if (pool, mark.stem) not in left:
                    mark.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
                sync_folder(folder.parent)

    def is_removed(self, path: Path) -> bool:
        """Tell whether a layer is of a disk that was removed."""
        name = parse_name(path.name)
        return name is not None and (path.parent / f"{name[0]}{_REMOVED}").exists()

    def all_removed(self) -> frozenset[Key]:
        """Return the disks that were removed, while layers of theirs stay."""
        folders = (subfolders(self._pools.folder(pool, "disks")) for pool in self._pools.names())
        return frozenset(key for found in folders for folder in found for key in self._removed(folder.name))

    def _removed(self, uid: str) -> frozenset[Key]:
        return frozenset(
            (uid, pool, mark.name.removesuffix(_REMOVED))
            for pool in self._pools.names()
            for mark in self._folder(pool, uid).glob(f"*{_REMOVED}")
        )

    def _folder(self, pool: str, uid: str) -> Path:
        return self._pools.folder(pool, "disks") / uid


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
