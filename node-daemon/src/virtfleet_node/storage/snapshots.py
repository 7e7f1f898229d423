"""Snapshots of machines: <pool>/snapshots/<machine uid>/<snapshot uid>, with `snapshot.json` and `memory`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot
from virtfleet_node.core.errors import NotFoundError
from virtfleet_node.storage.files import (
    check_real,
    make_folder,
    read_small,
    remove_folder,
    subfolders,
    sync_folder,
    write_whole,
)
from virtfleet_node.storage.pools import Pools

_KEPT: Final = "snapshot.json"
_MEMORY: Final = "memory"


class SnapshotStore:
    """The snapshots in all pools. Everything here blocks, shortly."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def read_all(self) -> tuple[KeptSnapshot, ...]:
        """Return every snapshot that is there, begun ones among them."""
        return tuple(kept for folder in self._folders() if (kept := _read(folder)) is not None)

    def of_machine(self, machine_uid: str) -> tuple[KeptSnapshot, ...]:
        """Return the snapshots of a machine."""
        machines = (self._pools.folder(pool, "snapshots") / machine_uid for pool in self._pools.names())
        folders = (folder for machine in machines if not machine.is_symlink() for folder in subfolders(machine))
        return tuple(kept for folder in folders if (kept := _read(folder)) is not None)

    def get(self, uid: str) -> KeptSnapshot | None:
        """Return a snapshot, None when the node has none with this UID."""
        folder = self._find(uid)
        return _read(folder) if folder else None

    def begin(self, pool: str, kept: KeptSnapshot) -> None:
        """Keep one that is to be captured, in this pool; durable when this returns."""
        folder = make_folder(self._pools.folder(pool, "snapshots") / kept.document.machine_uid) / kept.uid
        write_whole(make_folder(folder) / _KEPT, kept.to_json())
        sync_folder(folder.parent)

    def write(self, kept: KeptSnapshot) -> None:
        """Keep what has become of one that was begun; NotFoundError when it is gone."""
        write_whole(self._folder(kept.uid) / _KEPT, kept.to_json())

    def memory_file(self, uid: str) -> Path:
        """Return where the memory image is, or is to be; NotFoundError when there is no such snapshot."""
        return self._folder(uid) / _MEMORY

    def pool(self, uid: str) -> str:
        """Return the pool that keeps a snapshot; NotFoundError when there is no such snapshot."""
        folder = self._folder(uid)
        return next(
            name for name in self._pools.names() if folder.is_relative_to(self._pools.folder(name, "snapshots"))
        )

    def remove(self, uid: str) -> None:
        """Remove one with its memory, if it is there; its layers are removed by who looks after them."""
        folder = self._find(uid)
        if folder is None:
            return
        (folder / _KEPT).unlink(missing_ok=True)  # first: what is half removed is no snapshot
        remove_folder(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
            sync_folder(folder.parent.parent)

    def sweep(self) -> None:
        """Remove what a crash has left of snapshots that were being removed."""
        for folder in self._folders():
            if not (folder / _KEPT).exists():
                remove_folder(folder)

    def has_unreadable(self) -> bool:
        """Tell whether there is a snapshot that cannot be read, such as one of a later version's."""
        return any((folder / _KEPT).exists() and _read(folder) is None for folder in self._folders())

    def layer(self, machine_uid: str, disk: CapturedDisk) -> Path:
        """Return the file that holds a disk of a snapshot of this machine."""
        return self._pools.folder(disk.pool, "disks") / machine_uid / disk.file

    def named(self) -> frozenset[Path]:
        """Return the layers that snapshots name."""
        return frozenset(
            self.layer(kept.document.machine_uid, disk)
            for kept in self.read_all()
            if kept.captured is not None
            for disk in kept.captured.disks
        )

    def rename_layer(self, machine_uid: str, pool: str, old: str, new: str) -> None:
        """Have the snapshots of a machine name another file of the same content; each is right before and after."""
        for kept in self.of_machine(machine_uid):
            if kept.captured is not None and any((d.pool, d.file) == (pool, old) for d in kept.captured.disks):
                self.write(kept.model_copy(update={"captured": _renamed(kept.captured, pool, old, new)}))

    def _folder(self, uid: str) -> Path:
        folder = self._find(uid)
        if folder is None:
            raise NotFoundError(f"This node has no snapshot {uid}.")
        check_real(folder)
        return folder

    def _find(self, uid: str) -> Path | None:
        return next((folder for folder in self._folders() if folder.name == uid), None)

    def _folders(self) -> Iterator[Path]:
        for pool in self._pools.names():
            for machine in subfolders(self._pools.folder(pool, "snapshots")):
                yield from subfolders(machine)


def _renamed(captured: Captured, pool: str, old: str, new: str) -> Captured:
    disks = tuple(
        disk.model_copy(update={"file": new}) if (disk.pool, disk.file) == (pool, old) else disk
        for disk in captured.disks
    )
    return captured.model_copy(update={"disks": disks})


def _read(folder: Path) -> KeptSnapshot | None:
    content = read_small(folder / _KEPT)
    if content is None:
        return None
    try:
        kept = KeptSnapshot.model_validate_json(content)
    except ValidationError:
        return None
    return kept if kept.uid == folder.name else None
