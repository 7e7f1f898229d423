"""Capture one machine: new layers for its disks, and its memory when it runs.

Until what was captured is written there is no snapshot: whatever is cut off before is begun anew, by the same machine
in the same or other layers.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from virtfleet_api.vm_snapshot import SnapshotMode
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.freezer import Freezer
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.works import to_end
from virtfleet_node.core.capture import check_memory, check_wanted, included, indications, waits_for
from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot
from virtfleet_node.core.errors import ConflictError, NodeError, PoolFullError, UnavailableError
from virtfleet_node.core.layers import as_attached
from virtfleet_node.core.observed import DomainState, ObservedDomain
from virtfleet_node.core.record import Stored
from virtfleet_node.core.stored import StoredDisk
from virtfleet_node.hypervisor.snapshot import Taken

_LOG = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.25
"""A guest that shall stop waits so long for its capture to end."""


_LOOKS: Final = 8
"""A QEMU that was killed is known to be gone within a tenth of a second, later on a busy host."""

_AT_ONCE: Final = 2
"""Memory is written as fast as disks take it, and a guest can be changed again only afterwards."""


class Capturer:
    """Captures machines, one call for each."""

    def __init__(self, around: Surroundings, freezer: Freezer, wake: Callable[[str], None]) -> None:
        self._around = around
        self._freezer = freezer
        self._wake = wake
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def capture(self, kept: KeptSnapshot, entry: Entry, advance: Callable[[float], None]) -> None:
        """Capture a machine and write what was captured. `advance` is told the percentage.

        Raises:
            UnavailableError: it cannot be captured now; nothing is left of what was begun, or it is removed next time.
            NodeError: it cannot be captured.
            OSError: the file system fails.
        """
        disks = await asyncio.to_thread(self._around.disks.read_disks, entry.desired.uid)
        slots = self._slots if kept.document.mode is SnapshotMode.MEMORY else nullcontext()
        async with slots, self._around.layer_use.using(disks), entry.copying:
            await self._tidy(kept, entry)
            try:
                await self._begin(kept, entry, advance)
            except BaseException:
                await asyncio.shield(self._undo(kept, entry))
                raise

    async def undo(self, kept: KeptSnapshot, entry: Entry) -> None:
        """Remove what is left of a capture that was ended, before its snapshot goes; nothing when it was captured."""
        await self._undo(kept, entry)

    async def _begin(self, kept: KeptSnapshot, entry: Entry, advance: Callable[[float], None]) -> None:
        async with AsyncExitStack() as stack:
            async with entry.lock:
                capture = await self._look(kept, entry)
                if not capture.domain.active:
                    await self._around.disks.captures.make_layers(entry.desired.uid, capture.disks)
                    await self._write(capture, Taken(self._around.now()))
                    return
                await self._check_room(capture)
                files = await self._around.disks.captures.make_layers(entry.desired.uid, capture.disks)
                taking = await stack.enter_async_context(self._taking(capture, entry, files))
                advance(0)
                await asyncio.wait({taking}, timeout=_POLL_SECONDS)  # so that what is written from now on finds the job
            taken = await self._follow(capture, entry, taking, advance)
        async with entry.lock:
            await self._write(capture, taken)

    @asynccontextmanager
    async def _taking(
        self, capture: "_Capture", entry: Entry, files: Mapping[str, str]
    ) -> AsyncIterator["asyncio.Future[Taken]"]:
        """Begin to capture a guest; whatever happens, nothing goes on any more when this is left."""
        entry.capturing = True
        taking = asyncio.ensure_future(self._take(capture, files))
        try:
            yield taking
        finally:
            try:
                await asyncio.shield(self._end(capture, taking))
            finally:
                entry.capturing = False
                self._wake(capture.uid)

    async def _look(self, kept: KeptSnapshot, entry: Entry) -> "_Capture":
        """Return what is to be captured; `lock` is held."""
        uid = entry.desired.uid
        domain = await self._around.hypervisor.read(uid)
        if domain.stored is None or domain.state is DomainState.CRASHED:
            raise UnavailableError("The guest has crashed; the machine is captured once it is off or runs again.")
        told = entry.report.phase if entry.report else None
        if said := waits_for(entry.desired, domain.stored.record, told, active=domain.active):
            raise UnavailableError(said)
        if domain.active and kept.document.mode is SnapshotMode.MEMORY:
            check_memory(disk.volume for disk in domain.disks)
        there = await asyncio.to_thread(self._around.disks.read_disks, uid)
        disks = included(kept.document, entry.desired, as_attached(there, domain.disks))
        if domain.active:
            attached = {disk.file for disk in domain.disks}
            disks = tuple(disk for disk in disks if str(disk.path) in attached)
        if not disks:
            raise ConflictError("The machine has none of the disks that were to be captured.")
        return _Capture(kept, domain, domain.stored, disks)

    async def _check_room(self, capture: "_Capture") -> None:
        captures = self._around.disks.captures
        needed = await self._around.hypervisor.read_resident(capture.uid) if capture.memory else 0
        needed = min(needed, (capture.stored.started or capture.stored.desired.hardware).memory_ceiling_bytes)
        await asyncio.to_thread(captures.check_room, capture.kept.uid, needed)

    async def _take(self, capture: "_Capture", files: Mapping[str, str]) -> Taken:
        hypervisor, captures = self._around.hypervisor, self._around.disks.captures
        memory = str(captures.memory_file(capture.kept.uid)) if capture.memory else None
        take = partial(hypervisor.take_snapshot, capture.uid, files, memory)
        return await (self._freezer.freeze(capture.uid, take) if capture.freeze else take(freeze=False))

    async def _follow(
        self, capture: "_Capture", entry: Entry, taking: "asyncio.Future[Taken]", advance: Callable[[float], None]
    ) -> Taken:
        """Return what was captured; end it when the guest shall stop, or when there is no room left."""
        hypervisor, captures = self._around.hypervisor, self._around.disks.captures
        try:
            while not taking.done():
                with suppress(NodeError):  # the call itself tells what has become of the guest
                    if await self._can_be_asked(capture):
                        advance(await hypervisor.read_snapshot(capture.uid) or 0)
                await asyncio.to_thread(captures.check_left, capture.kept.uid)
                check_wanted(entry.desired, capture.stored.record)
                await asyncio.wait({taking}, timeout=_POLL_SECONDS)
            return await taking
        except PoolFullError:
            raise
        except ConflictError:
            if await self._has_ended(capture):
                raise UnavailableError("The guest ended while it was captured; the machine is captured anew.") from None
            raise

    async def _end(self, capture: "_Capture", taking: "asyncio.Future[Taken]") -> None:
        """End what goes on, or is about to begin, and wait until it has ended."""
        while not taking.done():
            with suppress(NodeError):
                if await self._can_be_asked(capture):
                    await self._around.hypervisor.abort_snapshot(capture.uid)
            await asyncio.wait({taking}, timeout=_POLL_SECONDS)
        if not taking.cancelled():
            taking.exception()  # seen, if nobody waits for it any more

    async def _can_be_asked(self, capture: "_Capture") -> bool:
        """Tell whether libvirt answers for its job: who asks before it writes memory waits until all is written."""
        return await asyncio.to_thread(self._around.disks.captures.has_begun, capture.kept.uid)

    async def _has_ended(self, capture: "_Capture") -> bool:
        """Tell whether the guest has ended, which libvirt may come to know only after the capture has failed."""
        for _ in range(_LOOKS):
            domain = await self._around.hypervisor.read(capture.uid)
            started = domain.stored.record.started_at if domain.stored else None
            if not domain.active or started != capture.stored.record.started_at:
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def _write(self, capture: "_Capture", taken: Taken) -> None:
        """Write what was captured, and that the machine's state is that one; `lock` is held."""
        kept = capture.result(taken)
        captures, hypervisor = self._around.disks.captures, self._around.hypervisor
        if not await asyncio.to_thread(captures.is_whole, kept):
            raise ConflictError("The machine's disks were removed while it was captured.")
        await to_end(captures.write, kept)
        with suppress(NodeError):  # the next snapshot will not know of this one as its parent, and nothing else
            stored = (await hypervisor.read(capture.uid)).stored
            if stored is not None:
                record = stored.record.model_copy(update={"snapshot_uid": kept.uid})
                await hypervisor.write_stored(stored.model_copy(update={"record": record}))

    async def _undo(self, kept: KeptSnapshot, entry: Entry) -> None:
        """Remove what was begun; what cannot be removed now is removed before the next attempt."""
        with suppress(NodeError, OSError):
            await self._tidy(kept, entry)

    async def _tidy(self, kept: KeptSnapshot, entry: Entry) -> None:
        """End what an earlier process has begun, and remove what it has left."""
        uid, captures = entry.desired.uid, self._around.disks.captures
        found = await asyncio.to_thread(captures.get, kept.uid)
        if found is None or found.captured is not None:
            return
        await self._around.hypervisor.abort_snapshot(uid)
        async with entry.lock:
            domain = await self._around.hypervisor.read(uid)
            await to_end(captures.remove_memory, kept.uid)
            if domain.active:
                await captures.remove_layers(uid, frozenset(Path(disk.file) for disk in domain.disks))


@dataclass(frozen=True)
class _Capture:
    """A capture under way."""

    kept: KeptSnapshot
    domain: ObservedDomain
    stored: Stored
    disks: tuple[StoredDisk, ...]
    """As they are before."""

    @property
    def uid(self) -> str:
        return self.stored.desired.uid

    @property
    def memory(self) -> bool:
        return self.domain.active and self.kept.document.mode is SnapshotMode.MEMORY

    @property
    def freeze(self) -> bool:
        """Whether the guest's file systems are to be frozen: in memory they are in order anyway."""
        answers = self.domain.agent_connected and self.domain.state is DomainState.RUNNING
        return answers and not self.memory and self.kept.document.quiesce

    def result(self, taken: Taken) -> KeptSnapshot:
        """Return what is kept once all is captured."""
        hardware, parent = self.stored.desired.hardware, self.stored.record.snapshot_uid
        captured = Captured(
            created_at=taken.at,
            pause_milliseconds=round(taken.pause_seconds * 1000),
            hardware=(self.stored.started or hardware) if self.domain.active else hardware,
            places=self.stored.places,
            disks=tuple(
                CapturedDisk(name=disk.name, pool=disk.pool, file=disk.path.name, capacity_bytes=disk.capacity_bytes)
                for disk in self.disks
            ),
            memory=self.memory,
            indications=indications(running=self.domain.active, memory=self.memory, frozen=taken.frozen),
            parent_uid="" if parent == self.kept.uid else parent,
        )
        return self.kept.model_copy(update={"captured": captured})
