"""The files of restores: new layers above those of snapshots, and copies of memory images for other machines.

Nothing of a restore is remembered here: which layers are new stands in the machine's record. What the disks were before
lies below them in number, and is held until the restore is done.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from virtfleet_api.image import ImageFormat
from virtfleet_node.core.captured import CapturedDisk, KeptSnapshot
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.layers import Layer, chain
from virtfleet_node.core.restoring import NewLayer, Restoring
from virtfleet_node.core.save_image import ALIGNMENT, FIXED_BYTES, SaveImageHead, build_head, head_bytes, parse_head
from virtfleet_node.core.snapshot_view import SnapshotView
from virtfleet_node.core.stored import StoredDisk
from virtfleet_node.storage.clones import CloneStore
from virtfleet_node.storage.files import PARTIAL, check_real, make_folder
from virtfleet_node.storage.layers import LayerStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.reflink import can_reflink
from virtfleet_node.storage.snapshots import SnapshotStore

_COPY: Final = f"memory{PARTIAL}"

_PIECE_BYTES: Final = 64 << 20


class RestoreStore:
    """What restores read and write in the pools. Everything here blocks, but for the making of layers."""

    def __init__(self, pools: Pools, snapshots: SnapshotStore, layers: LayerStore, clones: CloneStore) -> None:
        self._pools = pools
        self._snapshots = snapshots
        self._layers = layers
        self._clones = clones

    def view(self, uid: str, snapshot_uid: str) -> SnapshotView | None:
        """Return a snapshot as a restore of a machine sees it; None when the node has none."""
        kept = self._snapshots.get(snapshot_uid)
        if kept is None:
            return None
        disks = kept.captured.disks if kept.captured else ()
        files = {disk.name: self._below(kept, disk) for disk in disks}
        there = {(pool, disk) for _, pool, disk in self._layers.tips(uid)}
        return SnapshotView(
            kept=kept,
            below={name: path for name, path in files.items() if self._layers.read(path) is not None},
            next_files={(pool, disk): self._layers.next_path(uid, pool, disk).name for pool, disk in there},
            unreadable=self._check_memory(kept),
        )

    def captured_disks(self, snapshot_uid: str) -> tuple[str, tuple[StoredDisk, ...]]:
        """Return whose disks a snapshot holds, and these with all that they lie on; nothing of one that is not here."""
        kept = self._snapshots.get(snapshot_uid)
        if kept is None or kept.captured is None:
            return "", ()
        found = (self._layers.read(self._below(kept, disk)) for disk in kept.captured.disks)
        by_path = {layer.path: layer for layer in self._layers.read_all()}
        return kept.document.machine_uid, tuple(_stored(layer, by_path) for layer in found if layer is not None)

    def hold(self, uid: str, restoring: Restoring | None) -> None:
        """Keep what a machine's disks were before a restore that is under way; None when there is none any more."""
        self._layers.hold(uid, self._before(uid, restoring.layers) if restoring else ())

    async def make_layers(self, uid: str, restoring: Restoring) -> None:
        """Make the new layers, those that are not there; each disk is put back at once when its layer appears.

        Raises:
            ConflictError: the snapshot is gone.
            OSError: the file system is full.
        """
        kept = self._snapshots.get(restoring.snapshot_uid)
        disks = {disk.name: disk for disk in kept.captured.disks} if kept and kept.captured else {}
        for layer in restoring.layers:
            if kept is None or layer.captured not in disks:
                raise ConflictError("The snapshot was removed while it was being restored.")
            await self._layers.make(self._path(uid, layer), self._below(kept, disks[layer.captured]))

    def drop_layers(self, uid: str, restoring: Restoring) -> None:
        """Remove the new layers: what lies below them in number is the disk again."""
        for layer in restoring.layers:
            path = self._path(uid, layer)
            if path.parent.exists():
                self._layers.remove(path)

    def read_head(self, snapshot_uid: str) -> SaveImageHead:
        """Return the head of a snapshot's memory image; ConflictError when it cannot be read."""
        try:
            return _read_head(self._snapshots.memory_file(snapshot_uid))
        except (OSError, ValueError) as error:
            raise ConflictError(f"The memory image of the snapshot cannot be read: {error}.") from None

    def memory_file(self, snapshot_uid: str) -> Path:
        """Return the memory image of a snapshot; NotFoundError when there is no such snapshot."""
        return self._snapshots.memory_file(snapshot_uid)

    def copy_memory(self, uid: str, snapshot_uid: str, describe: Callable[[SaveImageHead], str]) -> Path:
        """Make a copy of a memory image with another description, in a machine's folder, and return its path.

        It shares the image's blocks where the file system can.

        Raises:
            PoolFullError: the pool has no room for it.
            OSError: the file system fails.
        """
        source = self._snapshots.memory_file(snapshot_uid)
        pool = self._snapshots.pool(snapshot_uid)
        target = make_folder(self._pools.folder(pool, "disks") / uid) / _COPY
        target.unlink(missing_ok=True)
        if not can_reflink(target.parent):
            self._clones.check_room([(pool, (source,))])
        try:
            _copy_described(source, target, describe)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return target

    def remove_copy(self, uid: str) -> None:
        """Remove that copy, if it is there."""
        for pool in self._pools.names():
            folder = self._pools.folder(pool, "disks") / uid
            if (folder / _COPY).exists():
                check_real(folder)
                (folder / _COPY).unlink(missing_ok=True)

    def tidy(self, uid: str) -> None:
        """Remove layers that nobody needs any more."""
        self._layers.remove_unneeded(uid)

    def _before(self, uid: str, layers: Iterable[NewLayer]) -> tuple[Path, ...]:
        """Return what the disks were before these layers: the highest of each disk's that is lower than the new one."""
        found = []
        for new in layers:
            path = self._path(uid, new)
            rank = self._layers.numbers(uid, new.pool, new.name)
            number = rank.pop(path.name, None)
            lower = [(n, name) for name, n in rank.items() if number is None or n < number]
            if lower:
                found.append(path.with_name(max(lower)[1]))
        return tuple(found)

    def _path(self, uid: str, layer: NewLayer) -> Path:
        return self._pools.folder(layer.pool, "disks") / uid / layer.file

    def _below(self, kept: KeptSnapshot, disk: CapturedDisk) -> Path:
        return self._snapshots.layer(kept.document.machine_uid, disk)

    def _check_memory(self, kept: KeptSnapshot) -> str:
        if kept.captured is None or not kept.captured.memory:
            return ""
        try:
            _read_head(self._snapshots.memory_file(kept.uid))
        except OSError as error:
            return error.strerror or str(error)
        except ValueError as error:
            return str(error)
        return ""


def _stored(layer: Layer, by_path: dict[Path, Layer]) -> StoredDisk:
    below = tuple(lower.path for lower in chain(layer, by_path))
    return StoredDisk(layer.pool, layer.disk, layer.path, ImageFormat.QCOW2, layer.capacity_bytes, layers=below)


def _read_head(path: Path) -> SaveImageHead:
    with path.open("rb") as file:
        fixed = file.read(FIXED_BYTES)
        return parse_head(fixed + file.read(head_bytes(fixed) - FIXED_BYTES))


def _copy_described(source: Path, target: Path, describe: Callable[[SaveImageHead], str]) -> None:
    """Copy QEMU's part to where it belongs, and write another head in front of it.

    What is copied begins and ends with blocks of the file system, which then share them: the head is written last.
    """
    try:
        old = _read_head(source)
    except ValueError as error:
        raise ConflictError(f"The memory image of the snapshot cannot be read: {error}.") from None
    head = build_head(old, describe(old))
    start = old.head_bytes // ALIGNMENT * ALIGNMENT
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with source.open("rb") as origin, os.fdopen(descriptor, "wb") as copy:
        _copy(origin.fileno(), copy.fileno(), start, start + len(head) - old.head_bytes)
        copy.seek(0)
        copy.write(head)


def _copy(source: int, target: int, at: int, to: int) -> None:
    while count := os.copy_file_range(source, target, _PIECE_BYTES, at, to):
        at, to = at + count, to + count
