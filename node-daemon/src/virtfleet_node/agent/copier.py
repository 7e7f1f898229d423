"""Copies of machines' disks, for other machines and for images.

A source that is off is read by qemu-img until it is to be started: a start never waits for a copy. A source that runs
is copied by QEMU. Either way one copy is made of a source at a time, and what is not complete is made anew.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from virtfleet_api.image import CopyOrigin, DiskOrigin, SnapshotOrigin
from virtfleet_api.machine import DiskCopySource, ExistingSource, MachineDisk, Run
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.agent.entry import Entry, Work
from virtfleet_node.agent.freezer import Freezer
from virtfleet_node.agent.look_at_layers import snapshot_free
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.works import STEP, to_end
from virtfleet_node.core.actions import CloneDisks
from virtfleet_node.core.errors import ConflictError, InvalidError, NodeError
from virtfleet_node.core.observed import DomainState
from virtfleet_node.core.plan_clones import copies_wanted
from virtfleet_node.core.stored import ImageFiles, StoredDisk

Name = tuple[str, str]
"""Pool and name of a disk."""

_LOG = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.5


class Copier:
    """The copies that are being made."""

    def __init__(
        self, around: Surroundings, entries: Mapping[str, Entry], freezer: Freezer, wake: Callable[[str], None]
    ) -> None:
        self._around = around
        self._entries = entries
        self._freezer = freezer
        self._wake = wake
        self._recovered = asyncio.Event()
        """What an earlier process left is known: the machines, and its jobs, which have ended."""

    async def recover(self) -> None:
        """End the jobs that an earlier process has left."""
        for uid in await self._around.hypervisor.list_backups():
            if (entry := self._entries.get(uid)) and not entry.copying.locked():
                _LOG.warning("Ending a copy that nobody waits for", extra={"uid": uid, "action": "abort copy"})
                with suppress(NodeError):  # it is tried again before the next copy
                    await self._around.hypervisor.abort_backup(uid)
        self._recovered.set()

    def look_for_copies(self, uid: str, entry: Entry) -> None:
        """Note what has yet to be copied from disks of a machine that is to be removed."""
        waiting = (other.desired for other in self._waiting_for(uid))
        images = (f"the image {name}" for name in self._around.images.copied_from(uid))
        entry.wanted_by = (*(f"{machine.namespace}/{machine.name}" for machine in waiting), *images)

    def _waiting_for(self, uid: str) -> tuple[Entry, ...]:
        """Return the machines that take disks from this one and do not have them all."""
        named = (entry for entry in self._entries.values() if uid in _source_uids(entry, set()))
        return tuple(
            entry
            for entry in named
            if entry.desired.run is not Run.ABSENT and uid in _source_uids(entry, self._there(entry.desired.uid))
        )

    def _there(self, uid: str) -> set[Name]:
        return {(disk.pool, disk.name) for disk in self._around.disks.read_disks(uid)}

    def describe(self, action: CloneDisks) -> str:
        """Say what is copied, for users."""
        source = self._entries.get(action.source_uid)
        name = f"{source.desired.namespace}/{source.desired.name}" if source else action.source_uid
        return f"Copying disks of {name}"

    async def clone(self, uid: str, work: Work, action: CloneDisks) -> None:
        """Copy the disks, and let all of them appear.

        Raises:
            NodeError: they cannot be copied now.
        """
        clones = self._around.disks.clones
        if await to_end(clones.finish, uid, action.source_uid):
            return
        source = self._entries.get(action.source_uid)
        if source is None:
            raise ConflictError("The machine whose disks are to be copied is not on this node.")
        async with self._layers_free(source), source.copying:
            _check_free(source)
            sources = await self._find_sources(action)
            files = await to_end(clones.begin, uid, action.disks)
            await self._copy(_Copying(uid, action, sources, files, partial(self._advance, uid, work)), source)
            await to_end(clones.commit, uid, action.source_uid, action.disks)
        for waiting in (action.source_uid, *(entry.desired.uid for entry in self._waiting_for(uid))):
            self._wake(waiting)

    async def export(self, origin: CopyOrigin, pool: str, target: Path, progress: Callable[[float], None]) -> None:
        """Copy a disk, whole, into a new file of that pool, which needs no other.

        Raises:
            NodeError: it cannot be copied now; what is in the file is of no use.
        """
        await self._recovered.wait()
        match origin:
            case DiskOrigin():
                await self._export_disk(origin, pool, target, progress)
            case SnapshotOrigin():
                await self._export_captured(origin, pool, target, progress)

    async def _export_captured(
        self, origin: SnapshotOrigin, pool: str, target: Path, progress: Callable[[float], None]
    ) -> None:
        """Copy what nobody writes any more: its machine does not notice, whether it runs or is gone."""
        disks, uid = self._around.disks, origin.snapshot_uid or ""
        async with snapshot_free(self._around, uid):
            source = await asyncio.to_thread(disks.read_captured, uid, origin.name)
            if source is None:
                raise ConflictError(f"The disk {origin.name} of snapshot {origin.snapshot} is not on this node.")
            copy = MachineDisk(name=origin.name, pool=pool, source=ExistingSource(clone=Clone.FULL))
            await disks.clones.copy(source, self._image(source), copy, target, progress)

    async def _export_disk(
        self, origin: DiskOrigin, pool: str, target: Path, progress: Callable[[float], None]
    ) -> None:
        source = self._entries.get(origin.machine_uid or "")
        if source is None or origin.pool is None:
            raise ConflictError(f"The machine {origin.machine} is not on this node any more.")
        uid, name = source.desired.uid, origin.name
        wanted = DiskCopySource(machine_uid=uid, pool=origin.pool, name=name, clone=Clone.FULL)
        action = CloneDisks(uid, (MachineDisk(name=name, pool=pool, source=wanted),))
        async with self._layers_free(source), source.copying:
            _check_free(source)
            sources = await self._find_sources(action)
            await self._copy(_Copying(uid, action, sources, {(pool, name): target}, progress), source)

    @asynccontextmanager
    async def _layers_free(self, source: Entry) -> AsyncIterator[None]:
        """Have nobody merge layers of the source's disks meanwhile."""
        disks = await asyncio.to_thread(self._around.disks.read_disks, source.desired.uid)
        async with self._around.layer_use.using(disks):
            yield

    async def _find_sources(self, action: CloneDisks) -> dict[Name, StoredDisk]:
        """Return what each disk is copied from, by the name of the copy."""
        stored = await asyncio.to_thread(self._around.disks.read_disks, action.source_uid)
        there = {(disk.pool, disk.name): disk for disk in stored}
        found = {}
        for disk in action.disks:
            source = there.get((disk.source.pool, disk.source.name)) if disk.source.kind == "Disk" else None
            if source is None:
                self._refuse_volume(action.source_uid, disk)
                raise ConflictError(f"The disk that {disk.name} is copied from does not exist yet.")
            self._around.disks.clones.check(disk, source)
            found[disk.pool, disk.name] = source
        return found

    def _refuse_volume(self, source_uid: str, disk: MachineDisk) -> None:
        source = self._entries.get(source_uid)
        volumes = source.desired.hardware.volumes if source else ()
        if disk.source.kind == "Disk" and disk.source.name in {volume.name for volume in volumes}:
            raise InvalidError(
                f"Disk {disk.source.name} is the volume of a claim, which is not copied: clone the claim instead, and "
                "use the new claim."
            )

    async def _copy(self, copy: "_Copying", source: Entry) -> None:
        """Copy in the way that suits the source, and begin again in the other way when it is started meanwhile."""
        while True:
            async with source.lock:
                domain = await self._around.hypervisor.read(copy.action.source_uid)
                if domain.state in {DomainState.RUNNING, DomainState.PAUSED}:
                    freeze = domain.agent_connected and domain.state is DomainState.RUNNING
                    reading = asyncio.create_task(self._copy_running(copy, source, freeze=freeze))
                elif domain.active:
                    raise ConflictError(
                        "The machine whose disks are to be copied has crashed; it is switched off first."
                    )
                else:
                    reading = asyncio.create_task(self._copy_files(copy))
                    source.readers.add(reading)
            try:
                return await reading
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                _LOG.info(
                    "Copying anew, as the source was started", extra={"uid": copy.uid, "action": str(copy.action)}
                )
            finally:
                source.readers.discard(reading)

    async def _copy_files(self, copy: "_Copying") -> None:
        """Copy the files of a source that is off, one after the other."""
        share = 100 / len(copy.files)
        for number, disk in enumerate(copy.action.disks):
            name = (disk.pool, disk.name)
            copy.files[name].unlink(missing_ok=True)

            def progress(percent: float, before: float = number * share) -> None:
                copy.advance(before + percent * share / 100)

            source = copy.sources[name]
            await self._around.disks.clones.copy(source, self._image(source), disk, copy.files[name], progress)

    async def _copy_running(self, copy: "_Copying", source: Entry, *, freeze: bool) -> None:
        """Have QEMU copy the disks of a source that runs."""
        clones = self._around.disks.clones
        await self._around.hypervisor.abort_backup(copy.action.source_uid)
        for path in copy.files.values():
            path.unlink(missing_ok=True)
        clones.check_room((pool, self._files(disk)) for (pool, _), disk in copy.sources.items())
        await clones.make_targets(copy.sources, copy.files)
        source.is_copied = True
        try:
            await self._run_backup(copy, freeze=freeze)
        finally:
            source.is_copied = False
            self._wake(copy.action.source_uid)
        await self._complete(copy)

    async def _complete(self, copy: "_Copying") -> None:
        """Bring what QEMU has copied into the form that is wanted; further copies of one disk are made of the first."""
        clones, first = self._around.disks.clones, copy.first()
        for disk in copy.action.disks:
            name = (disk.pool, disk.name)
            source = copy.sources[name]
            made = first[str(source.path)]
            await clones.wait_closed(copy.files[made])
            if made != name:
                copy.files[name].unlink()
                copied = replace(source, path=copy.files[made], layers=(), backing_image_uid=None)
                await clones.copy(copied, None, disk, copy.files[name], lambda _: None)
        for name in first.values():
            await clones.grow(copy.disk(name), copy.files[name], copy.sources[name].capacity_bytes)

    async def _run_backup(self, copy: "_Copying", *, freeze: bool) -> None:
        hypervisor, uid = self._around.hypervisor, copy.action.source_uid
        files = {path: str(copy.files[name]) for path, name in copy.first().items()}
        try:
            job = await self._begin(uid, files, freeze=freeze)
            while (percent := await hypervisor.read_backup(uid, job)) is not None:
                copy.advance(percent)
                for pool in copy.pools():
                    self._around.disks.clones.check_left(pool)
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            with suppress(NodeError):
                await asyncio.shield(hypervisor.abort_backup(uid))
            for path in copy.files.values():
                path.unlink(missing_ok=True)
            raise

    async def _begin(self, source_uid: str, files: Mapping[str, str], *, freeze: bool) -> object:
        begin = partial(self._around.hypervisor.begin_backup, source_uid, files)
        return await (self._freezer.freeze(source_uid, begin) if freeze else begin(freeze=False))

    def _files(self, disk: StoredDisk) -> tuple[Path, ...]:
        """Return the files that hold a disk's content."""
        image = self._image(disk)
        return (disk.path, *disk.layers, image.path) if image else (disk.path, *disk.layers)

    def _image(self, disk: StoredDisk) -> ImageFiles | None:
        if disk.backing_image_uid is None:
            return None
        image = self._around.images.files(disk.backing_image_uid)
        if image is None:
            raise ConflictError(f"Image {disk.backing_image_uid} is not ready on this node.")
        return image

    def _advance(self, uid: str, work: Work, percent: float) -> None:
        if percent >= work.percent + STEP:
            work.percent = int(percent)
            self._wake(uid)


@dataclass(frozen=True)
class _Copying:
    """A copy under way: for which machine (for an image: its source), from what, into what.

    Disks are named as in the copy.
    """

    uid: str
    action: CloneDisks
    sources: dict[Name, StoredDisk]
    files: dict[Name, Path]
    advance: Callable[[float], None]
    """Told the percentage."""

    def first(self) -> dict[str, Name]:
        """Return the first copy of each file: a job of QEMU's copies a disk once."""
        return {str(self.sources[name].path): name for name in reversed(self.sources)}

    def pools(self) -> set[str]:
        """Return the pools that are written to."""
        return {pool for pool, _ in self.files}

    def disk(self, name: Name) -> MachineDisk:
        """Return a disk as it is wanted."""
        return next(disk for disk in self.action.disks if (disk.pool, disk.name) == name)


def _check_free(source: Entry) -> None:
    """Refuse to copy disks of which some are put back to a snapshot already, and others are not: ConflictError."""
    if source.restoring is not None:
        raise ConflictError("The machine whose disks are to be copied is being restored; they are copied afterwards.")


def _source_uids(entry: Entry, there: set[Name]) -> set[str]:
    return {source for source, _ in copies_wanted(entry.desired, there)}
