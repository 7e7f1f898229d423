"""The files of captures: empty layers above a machine's disks, and memory images.

Which layers a capture has made is not remembered: those above what a running guest writes are of captures that were cut
off, since a guest that is off is started with the highest.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from virtfleet_node.core.captured import CapturedDisk, KeptSnapshot
from virtfleet_node.core.errors import NotFoundError, PoolFullError, UnavailableError
from virtfleet_node.core.stored import StoredDisk
from virtfleet_node.storage import qemu_img
from virtfleet_node.storage.clones import CloneStore
from virtfleet_node.storage.layers import LayerStore
from virtfleet_node.storage.memory_image import compress, is_plain, remove_partial
from virtfleet_node.storage.snapshots import SnapshotStore

_BLOCK = 512
"""Bytes that stat(2) counts st_blocks in."""


class CaptureStore:
    """What captures read and write in the pools. Everything here blocks, but for what is awaited."""

    def __init__(self, snapshots: SnapshotStore, layers: LayerStore, clones: CloneStore) -> None:
        self._snapshots = snapshots
        self._layers = layers
        self._clones = clones

    def read_all(self) -> tuple[KeptSnapshot, ...]:
        """Return every snapshot, the oldest first, after removing what is left of some that were being removed."""
        self._snapshots.sweep()
        return self._snapshots.read_all()

    def of_machine(self, machine_uid: str) -> tuple[KeptSnapshot, ...]:
        """Return the snapshots of a machine."""
        return self._snapshots.of_machine(machine_uid)

    def get(self, uid: str) -> KeptSnapshot | None:
        """Return a snapshot, None when the node has none with this UID."""
        return self._snapshots.get(uid)

    def begin(self, pool: str, kept: KeptSnapshot) -> None:
        """Keep one that is to be captured, in this pool; durable when this returns."""
        self._snapshots.begin(pool, kept)

    def write(self, kept: KeptSnapshot) -> None:
        """Keep what has become of it; NotFoundError when it is gone."""
        self._snapshots.write(kept)

    def remove(self, kept: KeptSnapshot) -> None:
        """Remove a snapshot, and the layers that nobody needs any more."""
        self._snapshots.remove(kept.uid)
        self._layers.remove_unneeded(kept.document.machine_uid)

    def sizes(self, kept: KeptSnapshot) -> dict[CapturedDisk, int]:
        """Return what the layers of its disks take, in bytes."""
        disks = kept.captured.disks if kept.captured else ()
        found = ((disk, self._layers.read(self._snapshots.layer(kept.document.machine_uid, disk))) for disk in disks)
        return {disk: layer.allocated_bytes for disk, layer in found if layer is not None}

    def memory_bytes(self, kept: KeptSnapshot) -> int | None:
        """Return what its memory image takes; None without one."""
        if kept.captured is None or not kept.captured.memory:
            return None
        try:
            return self._snapshots.memory_file(kept.uid).stat().st_blocks * _BLOCK
        except (FileNotFoundError, NotFoundError):
            return 0  # a restore says that it cannot be read

    def memory_file(self, uid: str) -> Path:
        """Return where the memory image is to be."""
        return self._snapshots.memory_file(uid)

    def has_begun(self, uid: str) -> bool:
        """Tell whether libvirt has begun to write the memory image."""
        try:
            return self._snapshots.memory_file(uid).stat().st_size > 0
        except OSError:
            return False

    def remove_memory(self, uid: str) -> None:
        """Remove what there is of the memory image of one that was not captured."""
        file = self._snapshots.memory_file(uid)
        file.unlink(missing_ok=True)
        remove_partial(file)

    def is_whole(self, kept: KeptSnapshot) -> bool:
        """Tell whether all files that it names are there."""
        disks = kept.captured.disks if kept.captured else ()
        return all(self._snapshots.layer(kept.document.machine_uid, disk).exists() for disk in disks)

    def check_room(self, uid: str, needed: int) -> None:
        """Refuse a memory image that may take so many bytes when its pool has no room for it: PoolFullError."""
        pool = self._snapshots.pool(uid)
        if needed > (free := self._clones.room(pool)):
            raise PoolFullError(
                f"The memory image needs up to {needed} bytes, and pool {pool} has {free} bytes free: free space in "
                "it, or capture the disks alone (mode: Disk)."
            )

    def check_left(self, uid: str) -> None:
        """Refuse to go on with a memory image whose pool has no room left: PoolFullError."""
        self._clones.check_left(self._snapshots.pool(uid))

    async def make_layers(self, machine_uid: str, disks: Iterable[StoredDisk]) -> dict[str, str]:
        """Make an empty layer above each disk, and return its file by the disk's.

        Raises:
            OSError: the file system is full; layers that are there already stay.
        """
        made = {}
        for disk in disks:
            path = self._layers.next_path(machine_uid, disk.pool, disk.name)
            await self._layers.make(path, disk.path)
            made[str(disk.path)] = str(path)
        return made

    async def remove_layers(self, machine_uid: str, in_use: Collection[Path]) -> None:
        """Remove the layers above those that the running guest of a machine writes.

        Raises:
            UnavailableError: QEMU has one of them open, although libvirt says otherwise.
        """
        layers = self._layers.of_machine(machine_uid)
        written = {layer.key: layer.number for layer in layers if layer.path in in_use}
        above = [layer for layer in layers if layer.number > written.get(layer.key, layer.number)]
        for layer in sorted(above, key=lambda layer: layer.number, reverse=True):
            if await qemu_img.is_in_use(layer.path):
                raise UnavailableError(
                    "libvirtd was killed while disks were switched, and does not know of it; the machine is captured "
                    "after the guest's next start."
                )
            self._layers.remove(layer.path)

    def plain_images(self) -> tuple[str, ...]:
        """Return the snapshots whose memory image is not compressed."""
        captured = (kept.uid for kept in self._snapshots.read_all() if kept.captured and kept.captured.memory)
        return tuple(uid for uid in captured if is_plain(self._snapshots.memory_file(uid)))

    async def compress(self, uid: str) -> None:
        """Compress a memory image with little priority; until that is done it is as it was.

        Raises:
            PoolFullError: there is no room for it beside the image.
            NodeError: it failed.
        """
        await compress(self._snapshots.memory_file(uid), self._clones.room(self._snapshots.pool(uid)))
