"""Copies of other machines' disks: each a task beside the queue, begun by a plan and ended with it.

A source that is off is read by qemu-img until it is to be started: a start never waits for a copy. A source that runs
is copied by QEMU. Either way one copy is made of a source at a time, and what is not complete is made anew.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from virtfleet_api.machine import Run
from virtfleet_node.agent.entry import Entry, Work
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.actions import Action, CloneDisks, LongAction
from virtfleet_node.core.errors import ConflictError, NodeError, UnavailableError
from virtfleet_node.core.observed import DomainState
from virtfleet_node.core.plan_clones import copies_wanted
from virtfleet_node.core.stored import ImageFiles, StoredDisk

P = ParamSpec("P")
T = TypeVar("T")

Name = tuple[str, str]
"""Pool and name of a disk."""

_LOG = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.5
_STEP: Final = 2
"""Percent between two reports of progress: fifty reports a copy, whatever its size."""


class Copier:
    """The copies that are being made."""

    def __init__(self, around: Surroundings, entries: Mapping[str, Entry], wake: Callable[[str], None]) -> None:
        self._around = around
        self._entries = entries
        self._wake = wake

    async def stop(self) -> None:
        """End all copies; they are begun again at the next start."""
        for entry in self._entries.values():
            await _end(entry)

    async def recover(self) -> None:
        """End the jobs that an earlier process has left, and thaw the guests that it had frozen."""
        for uid in await self._around.hypervisor.list_backups():
            if (entry := self._entries.get(uid)) and not entry.copying.locked():
                _LOG.warning("Ending a copy that nobody waits for", extra={"uid": uid, "action": "abort copy"})
                await self._around.hypervisor.abort_backup(uid)
        for uid in tuple(self._entries):
            await self.thaw(uid)

    async def thaw(self, uid: str) -> None:
        """Make sure that a guest goes on that was frozen for a copy; if it does not answer, it is asked again."""
        mark = self._frozen(uid)
        if mark.exists():
            with suppress(NodeError):
                await self._around.hypervisor.thaw(uid)
                mark.unlink(missing_ok=True)

    def look_for_copies(self, uid: str, entry: Entry) -> None:
        """Note which machines have yet to copy disks of one that is to be removed."""
        waiting = self._waiting_for(uid) if entry.desired.run is Run.ABSENT else ()
        entry.wanted_by = tuple(f"{other.desired.namespace}/{other.desired.name}" for other in waiting)

    async def settle(self, entry: Entry, actions: Iterable[Action]) -> None:
        """End what goes on for a machine and is no longer planned."""
        if entry.work is not None and entry.work.action not in actions:
            await _end(entry)

    def further(self, entry: Entry, action: LongAction) -> None:
        """Begin an action unless it goes on already; raise what it failed with."""
        work = entry.work
        if work is None:
            entry.work = work = Work(action, self._describe(action))
            work.task = asyncio.create_task(self._run(entry, work), name=f"copy-{entry.desired.uid}")
            self._wake(entry.desired.uid)
        elif work.error is not None:
            entry.work = None
            raise work.error

    def _waiting_for(self, uid: str) -> tuple[Entry, ...]:
        """Return the machines that take disks from this one and do not have them all."""
        return tuple(
            entry
            for entry in self._entries.values()
            if entry.desired.run is not Run.ABSENT
            and any(source == uid for source, _ in copies_wanted(entry.desired, self._there(entry.desired.uid)))
        )

    def _there(self, uid: str) -> set[Name]:
        return {(disk.pool, disk.name) for disk in self._around.disks.read_disks(uid)}

    def _describe(self, action: LongAction) -> str:
        source = self._entries.get(action.source_uid)
        name = f"{source.desired.namespace}/{source.desired.name}" if source else action.source_uid
        return f"Copying disks of {name}"

    async def _run(self, entry: Entry, work: Work) -> None:
        uid = entry.desired.uid
        try:
            await self._clone(uid, work)
        except NodeError as error:
            work.error = error
        except OSError as error:
            work.error = ConflictError(f"Copying failed: {error.strerror}.")
        except Exception:  # noqa: BLE001 -- logged with its traceback; the machine says so and tries again
            _LOG.exception("Copying failed unexpectedly", extra={"uid": uid, "action": str(work.action)})
            work.error = UnavailableError("Copying failed unexpectedly: see the daemon's log.")
        else:
            entry.work = None
            for waiting in (work.action.source_uid, *(e.desired.uid for e in self._waiting_for(uid))):
                self._wake(waiting)
        self._wake(uid)

    async def _clone(self, uid: str, work: Work) -> None:
        action, clones = work.action, self._around.disks.clones
        if await _to_end(clones.finish, uid, action.source_uid):
            return
        source = self._entries.get(action.source_uid)
        if source is None:
            raise ConflictError("The machine whose disks are to be copied is not on this node.")
        async with source.copying:
            sources = await self._find_sources(action)
            files = await _to_end(clones.begin, uid, action.disks)
            await self._copy(uid, source, work, sources, files)
            await _to_end(clones.commit, uid, action.source_uid, action.disks)

    async def _find_sources(self, action: CloneDisks) -> dict[Name, StoredDisk]:
        """Return what each disk is copied from, by the name of the copy."""
        stored = await asyncio.to_thread(self._around.disks.read_disks, action.source_uid)
        there = {(disk.pool, disk.name): disk for disk in stored}
        found = {}
        for disk in action.disks:
            source = there.get((disk.source.pool, disk.source.name)) if disk.source.kind == "Disk" else None
            if source is None:
                raise ConflictError(f"The disk that {disk.name} is copied from does not exist yet.")
            self._around.disks.clones.check(disk, source)
            found[disk.pool, disk.name] = source
        return found

    async def _copy(
        self, uid: str, source: Entry, work: Work, sources: Mapping[Name, StoredDisk], files: Mapping[Name, Path]
    ) -> None:
        """Copy in the way that suits the source, and begin again in the other way when it is started meanwhile."""
        while True:
            async with source.lock:
                domain = await self._around.hypervisor.read(work.action.source_uid)
                if domain.state in {DomainState.RUNNING, DomainState.PAUSED}:
                    freeze = domain.agent_connected and domain.state is DomainState.RUNNING
                    reading = asyncio.create_task(self._copy_running(uid, work, sources, files, freeze=freeze))
                elif domain.active:
                    raise ConflictError(
                        "The machine whose disks are to be copied has crashed; it is switched off first."
                    )
                else:
                    reading = asyncio.create_task(self._copy_files(uid, work, sources, files))
                    source.readers.add(reading)
            try:
                return await reading
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                _LOG.info("Copying anew, as the source was started", extra={"uid": uid, "action": str(work.action)})
            finally:
                source.readers.discard(reading)

    async def _copy_files(
        self, uid: str, work: Work, sources: Mapping[Name, StoredDisk], files: Mapping[Name, Path]
    ) -> None:
        """Copy the files of a source that is off, one after the other."""
        share = 100 / len(files)
        for number, disk in enumerate(work.action.disks):
            name = (disk.pool, disk.name)
            files[name].unlink(missing_ok=True)

            def progress(percent: float, before: float = number * share) -> None:
                self._advance(uid, work, before + percent * share / 100)

            image = self._image(sources[name])
            await self._around.disks.clones.copy(sources[name], image, disk, files[name], progress)

    async def _copy_running(
        self, uid: str, work: Work, sources: Mapping[Name, StoredDisk], files: Mapping[Name, Path], *, freeze: bool
    ) -> None:
        """Have QEMU copy the disks of a source that runs."""
        hypervisor, clones, source_uid = self._around.hypervisor, self._around.disks.clones, work.action.source_uid
        await hypervisor.abort_backup(source_uid)
        for path in files.values():
            path.unlink(missing_ok=True)
        disks = {(disk.pool, disk.name): disk for disk in work.action.disks}
        clones.check_room([(disks[name], s, self._image(s)) for name, s in sources.items()])
        await clones.make_targets(sources, files)
        entry = self._entries[source_uid]
        entry.is_copied = True
        try:
            await self._begin(source_uid, {str(s.path): str(files[name]) for name, s in sources.items()}, freeze=freeze)
            while (percent := await hypervisor.read_backup(source_uid)) is not None:
                self._advance(uid, work, percent)
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            with suppress(NodeError):
                await asyncio.shield(hypervisor.abort_backup(source_uid))
            raise
        finally:
            entry.is_copied = False
            self._wake(source_uid)
        for name, path in files.items():
            await clones.complete(disks[name], path, sources[name].capacity_bytes)

    async def _begin(self, source_uid: str, files: Mapping[str, str], *, freeze: bool) -> None:
        """Begin the job; that the guest may be frozen is marked before, for whoever finds it so after a crash."""
        mark = self._frozen(source_uid)
        if freeze:
            await asyncio.to_thread(mark.touch)
        try:
            await self._around.hypervisor.begin_backup(source_uid, files, freeze=freeze)
        finally:
            await asyncio.shield(self.thaw(source_uid))

    def _frozen(self, uid: str) -> Path:
        return self._around.console_log(uid).with_name("frozen")

    def _image(self, disk: StoredDisk) -> ImageFiles | None:
        if disk.backing_image_uid is None:
            return None
        image = self._around.images.files(disk.backing_image_uid)
        if image is None:
            raise ConflictError(f"Image {disk.backing_image_uid} is not ready on this node.")
        return image

    def _advance(self, uid: str, work: Work, percent: float) -> None:
        if percent >= work.percent + _STEP:
            work.percent = int(percent)
            self._wake(uid)


async def _to_end(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call in a thread, and wait for its end even when cancelled: files appear before or after, not meanwhile."""
    thread = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait((thread,))
        raise


async def _end(entry: Entry) -> None:
    work, entry.work = entry.work, None
    if work is not None and work.task is not None:
        work.task.cancel()
        with suppress(asyncio.CancelledError):
            await work.task
