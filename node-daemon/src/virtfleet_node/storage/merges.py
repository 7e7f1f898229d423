"""The files of layers that are merged. A merge by QEMU is kept in `<disk>.merging` beside them while it goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from virtfleet_node.core.errors import PoolFullError
from virtfleet_node.core.layers import Layer, parse_name
from virtfleet_node.core.merging import KeptMerge
from virtfleet_node.core.plan_merge import AddLayer, MergeLive, Recovery, Seen, recover
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.clones import CloneStore
from virtfleet_node.storage.files import check_real, read_small, sync_file, sync_folder, write_whole
from virtfleet_node.storage.layers import MERGING, LayerStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.snapshots import SnapshotStore


class MergeStore:
    """Merges layers of disks in all pools."""

    def __init__(self, pools: Pools, layers: LayerStore, snapshots: SnapshotStore, clones: CloneStore) -> None:
        self._pools = pools
        self._layers = layers
        self._snapshots = snapshots
        self._clones = clones

    def has_layers(self, uid: str) -> bool:
        """Tell whether there is any layer of a machine but the files that its disks began with. Quick."""
        return any(
            path.suffix == MERGING or ((name := parse_name(path.name)) is not None and name[1] > 0)
            for pool in self._pools.names()
            for path in self._folder(pool, uid).glob("*")
        )

    def look(self) -> Seen | None:
        """Return all layers and who names them, without the guests; None while that is not known."""
        if self._snapshots.has_unreadable():
            return None
        return Seen(self._layers.read_all(), self._layers.named(), self._layers.all_removed())

    def check_room(self, pool: str, needed: int) -> None:
        """Refuse a merge that may take so many bytes more of its pool when that has no room: PoolFullError."""
        if needed > (free := self._clones.room(pool)):
            raise PoolFullError(f"Merging its layers may need {needed} bytes, and pool {pool} has {free} bytes free.")

    async def merge(self, lower: Path, upper: Path, rate: int, progress: Callable[[float], None]) -> None:
        """Write the upper layer into the lower one, at so many bytes per second; nobody uses either.

        Raises:
            InvalidError: somebody does.
            OSError: the file system is full.
        """
        await qemu_img.commit(upper, lower, rate, progress)

    def take_place(self, lower: Path, upper: Path) -> None:
        """Have the lower layer, into which the upper one is written, take its place, at once and durably."""
        check_real(lower.parent)
        sync_file(lower)
        lower.rename(upper)
        sync_folder(upper.parent)

    def remove(self, layer: Layer) -> None:
        """Remove a layer that nothing lies on, if it is there, and the machine's folder with its last one."""
        self._layers.remove(layer.path)
        self._layers.tidy(layer.machine_uid)

    async def add(self, step: AddLayer) -> Path:
        """Make the empty layer above a disk, and return it; it is the disk from then on for whoever starts it."""
        disk = step.disk
        path = self._layers.next_path(disk.machine_uid, disk.pool, disk.disk)
        await self._layers.make(path, disk.path)
        return path

    def begin(self, step: MergeLive) -> None:
        """Keep that QEMU is about to merge; durable when this returns."""
        pool, disk = step.lower.pool, step.lower.disk
        names = {"lower": step.lower.path.name, "upper": step.upper.path.name, "child": step.child.path.name}
        folder = self._folder(pool, step.lower.machine_uid)
        check_real(folder)
        write_whole(folder / f"{disk}{MERGING}", KeptMerge(pool=pool, disk=disk, **names).model_dump_json().encode())

    def begun(self, uid: str) -> tuple[KeptMerge, ...]:
        """Return the merges by QEMU that are kept of a machine."""
        return tuple(kept for pool in self._pools.names() for kept in self._read(pool, uid))

    async def recover(self, uid: str, kept: KeptMerge, *, running: bool) -> None:
        """Bring to an end what QEMU no longer works on.

        Raises:
            UnavailableError: QEMU still has the lower layer open for writing.
        """
        lower, upper, child = kept.in_folder(self._folder(kept.pool, uid))
        match recover(lower, upper, self._layers.read(child), upper_there=upper.exists(), running=running):
            case Recovery.FINISH:
                await self._finish(uid, kept)
            case Recovery.PUT_BACK:
                await qemu_img.set_backing(child, upper)
                sync_file(child)
        (lower.parent / f"{kept.disk}{MERGING}").unlink(missing_ok=True)
        sync_folder(lower.parent)

    async def _finish(self, uid: str, kept: KeptMerge) -> None:
        """Have snapshots name the lower layer, once all of it is on the disk, and remove the upper one."""
        lower, upper, child = kept.in_folder(self._folder(kept.pool, uid))
        await qemu_img.wait_unwritten(lower)
        sync_file(lower)
        sync_file(child)
        self._snapshots.rename_layer(uid, kept.pool, kept.upper, kept.lower)
        self._layers.remove(upper)

    def _read(self, pool: str, uid: str) -> Iterator[KeptMerge]:
        folder = self._folder(pool, uid)
        for path in folder.glob(f"*{MERGING}"):
            try:
                kept = KeptMerge.model_validate_json(read_small(path) or b"")
            except ValidationError:
                continue  # not ours: what is whole is written at once
            if (kept.pool, f"{kept.disk}{MERGING}") == (pool, path.name):
                yield kept

    def _folder(self, pool: str, uid: str) -> Path:
        return self._pools.folder(pool, "disks") / uid
