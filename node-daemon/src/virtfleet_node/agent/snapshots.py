"""The snapshots of the node's machines: kept, captured one at a time for each machine, reported, and removed."""

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_node.agent.capturer import Capturer
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.freezer import Freezer
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.works import STEP, to_end
from virtfleet_node.core.capture import Seen, build_report, check_capture, check_removal, check_same, failed, removed
from virtfleet_node.core.captured import KeptSnapshot
from virtfleet_node.core.errors import ConflictError, NodeError, NotFoundError, PoolFullError, UnavailableError

_LOG = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 0.5
_LONGEST_RETRY_SECONDS: Final = 5.0
"""A machine that could not be captured, since its guest was just ending, is looked at again so soon."""

_DOUBLINGS: Final = 5

EVERY_SECONDS: Final = 60.0
"""What a snapshot takes changes when others are removed, and layers are merged."""


class Snapshots:
    """All snapshots that the node holds."""

    def __init__(
        self, around: Surroundings, entries: Mapping[str, Entry], freezer: Freezer, wake: Callable[[str], None]
    ) -> None:
        self._around = around
        self._captures = around.disks.captures
        self._entries = entries
        self._wake = wake
        self._capturer = Capturer(around, freezer, wake)
        self._told: dict[str, SnapshotReport] = {}
        self._pending: dict[str, str] = {}
        """The machines of snapshots that are to be captured, in their order."""
        self._waits: dict[str, str] = {}
        """Why a snapshot has not been captured yet."""
        self._percent: dict[str, int] = {}
        """How far those are that are being captured."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Captures by machine."""
        self._current: dict[str, str] = {}
        """Snapshots that these are of, by machine."""
        self._compressing: dict[str, asyncio.Task[None]] = {}
        """By snapshot; one at a time."""
        self._captured = asyncio.Event()
        """There is a new memory image."""
        self._locks: dict[str, asyncio.Lock] = {}
        """By machine; held while its snapshots are added and removed."""

    async def start(self) -> None:
        """Take up what an earlier process has kept, and begin anew what it had begun."""
        for kept in await asyncio.to_thread(self._captures.read_all):
            await self._look(kept)

    async def stop(self) -> None:
        """End all work; it is begun again at the next start."""
        for task in (*self._tasks.values(), *self._compressing.values()):
            await _ended(task)

    async def run(self) -> None:
        """Compress memory images, and look at what snapshots take, again and again, until cancelled."""
        while True:
            with suppress(NodeError, OSError):
                for kept in await asyncio.to_thread(self._captures.read_all):  # a pool may have come since
                    await self._look(kept)
            with suppress(NodeError, OSError):
                for uid in await asyncio.to_thread(self._captures.plain_images):
                    await self._compress(uid)
            self._captured.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._captured.wait()

    def reports(self) -> tuple[SnapshotReport, ...]:
        """Return a report of each snapshot."""
        return tuple(self._told.values())

    async def put(self, wanted: MachineSnapshot) -> SnapshotReport:
        """Keep that a machine is to be captured, durably, or remove what was captured.

        Raises:
            ConflictError: the state of things forbids it now.
            InvalidError: there can be no such snapshot.
        """
        async with self._locks.setdefault(wanted.machine_uid, asyncio.Lock()):
            kept = await asyncio.to_thread(self._captures.get, wanted.uid)
            if kept is not None:
                check_same(kept, wanted)
            if not wanted.present:
                return await self._remove(wanted, kept)
            if kept is None:
                await self._keep(wanted)
            elif wanted.uid not in self._told:
                await self._take_up(kept)
            return self._told[wanted.uid]

    async def _keep(self, wanted: MachineSnapshot) -> None:
        entry = self._entries.get(wanted.machine_uid)
        machine = entry.desired if entry else None
        there = await asyncio.to_thread(self._around.disks.read_disks, wanted.machine_uid)
        others = await asyncio.to_thread(self._captures.of_machine, wanted.machine_uid)
        check_capture(wanted, machine, there, len(others))
        if machine is None:
            return
        pools = {disk.pool for disk in there}
        pool = next(disk.pool for disk in machine.hardware.own_disks if disk.pool in pools)
        try:
            await to_end(self._captures.begin, pool, KeptSnapshot(document=wanted))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise PoolFullError(f"Pool {pool} is full: free space in it.") from None
            raise ConflictError(f"Pool {pool} fails: {error.strerror}.") from None
        await self._take_up(KeptSnapshot(document=wanted))

    async def _look(self, kept: KeptSnapshot) -> None:
        """Look at a snapshot, unless it is removed meanwhile."""
        async with self._lock_of(kept):
            await self._take_up(kept)

    async def _take_up(self, kept: KeptSnapshot) -> None:
        """Tell of a snapshot, and have it captured if it is not yet."""
        await self._tell(kept.uid)
        if kept.uid in self._told and kept.captured is None and not kept.error:
            self._pending.setdefault(kept.uid, kept.document.machine_uid)
            self._begin(kept.document.machine_uid)

    def _lock_of(self, kept: KeptSnapshot) -> asyncio.Lock:
        return self._locks.setdefault(kept.document.machine_uid, asyncio.Lock())

    async def _remove(self, wanted: MachineSnapshot, kept: KeptSnapshot | None) -> SnapshotReport:
        if kept is not None:
            await asyncio.to_thread(self._check_removal, wanted.uid)
            self._pending.pop(wanted.uid, None)
            if self._current.get(wanted.machine_uid) == wanted.uid:
                await _ended(self._tasks[wanted.machine_uid])
                if (entry := self._entries.get(wanted.machine_uid)) is not None:
                    await self._capturer.undo(kept, entry)  # it may have been cut off within its own
            if wanted.uid in self._compressing:
                await _ended(self._compressing[wanted.uid])
            await to_end(self._captures.remove, kept)
            self._begin(wanted.machine_uid)
        self._told.pop(wanted.uid, None)
        self._waits.pop(wanted.uid, None)
        self._around.journal.remove_snapshot(wanted.uid)
        self._wake(wanted.machine_uid)
        return removed(wanted)

    def _check_removal(self, uid: str) -> None:
        machines = [entry.desired for entry in self._entries.values()]
        reports = [entry.report for entry in self._entries.values() if entry.report]
        served = {report.restore.token for report in reports if report.restore and report.restore.done}
        disks = self._around.disks
        check_removal(uid, [(machine, disks.read_disks(machine.uid)) for machine in machines], served)
        for entry in self._entries.values():
            if entry.restoring is not None and entry.restoring.snapshot_uid == uid:
                name = f"{entry.desired.namespace}/{entry.desired.name}"
                raise ConflictError(f"The snapshot stays while machine {name} is restored to it.")

    def _pending_of(self, machine_uid: str) -> tuple[str, ...]:
        return tuple(uid for uid, machine in self._pending.items() if machine == machine_uid)

    def _begin(self, machine_uid: str) -> None:
        """Capture a machine, if that is wanted and not under way."""
        if machine_uid not in self._tasks and self._pending_of(machine_uid):
            task = asyncio.create_task(self._work(machine_uid), name=f"capture-{machine_uid}")
            self._tasks[machine_uid] = task

    async def _work(self, machine_uid: str) -> None:
        failures = 0
        try:
            while waiting := self._pending_of(machine_uid):
                self._current[machine_uid] = waiting[0]
                if await self._attempt(waiting[0]):
                    self._pending.pop(waiting[0], None)
                    failures = 0
                    continue
                await asyncio.sleep(
                    min(_FIRST_RETRY_SECONDS * 2.0 ** min(failures, _DOUBLINGS), _LONGEST_RETRY_SECONDS)
                )
                failures += 1
        finally:
            self._tasks.pop(machine_uid, None)
            self._current.pop(machine_uid, None)

    async def _attempt(self, uid: str) -> bool:
        """Try to capture once; return whether that is decided, be it a success or not."""
        try:
            kept = await asyncio.to_thread(self._captures.get, uid)
            if kept is None or kept.captured is not None or kept.error:
                return True
            end = await self._capture(kept)
            if end is not None:
                await to_end(self._captures.write, end)
        except (UnavailableError, NotFoundError) as error:
            self._waits[uid] = str(error)
        except OSError as error:
            self._waits[uid] = f"The pool fails: {error.strerror or error}."
        except Exception:  # noqa: BLE001 -- logged with its traceback; it is tried again
            _LOG.exception("Failing unexpectedly", extra={"uid": uid, "action": "capture"})
            self._waits[uid] = "It failed unexpectedly: see the daemon's log."
        else:
            self._waits.pop(uid, None)
            await self._told_of(uid)
            self._captured.set()
            return True
        finally:
            self._percent.pop(uid, None)
        await self._told_of(uid)
        return False

    async def _capture(self, kept: KeptSnapshot) -> KeptSnapshot | None:
        """Capture; return what is to be kept of one that has failed for good."""
        entry, uid = self._entries.get(kept.document.machine_uid), kept.uid
        if entry is None:
            return failed(kept, "MachineGone", "The machine was removed before it was captured.")
        _LOG.info("Capturing a machine", extra={"uid": kept.document.machine_uid, "snapshot": uid})
        try:
            await self._capturer.capture(kept, entry, lambda percent: self._advance(kept, percent))
        except (UnavailableError, NotFoundError):
            raise
        except PoolFullError as error:
            return failed(kept, "PoolFull", str(error))
        except NodeError as error:
            return failed(kept, "CaptureFailed", f"The machine could not be captured: {error}")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return failed(kept, "PoolFull", "The pool of a disk is full: free space in it, and make another snapshot.")
        return None

    def _advance(self, kept: KeptSnapshot, percent: float) -> None:
        before = self._percent.get(kept.uid)
        if before is None or percent >= before + STEP:
            self._percent[kept.uid] = min(int(percent), 100)
            self._publish(kept, Seen(percent=self._percent[kept.uid]))

    async def _told_of(self, uid: str) -> None:
        self._percent.pop(uid, None)
        with suppress(NodeError, OSError):
            await self._tell(uid)

    async def _tell(self, uid: str) -> None:
        """Look at a snapshot, and tell of it."""
        kept = await asyncio.to_thread(self._captures.get, uid)
        if kept is None:
            return
        sizes = await asyncio.to_thread(self._captures.sizes, kept)
        memory_bytes = await asyncio.to_thread(self._captures.memory_bytes, kept)
        self._publish(kept, Seen(sizes, memory_bytes, self._percent.get(uid), self._waits.get(uid, "")))

    def _publish(self, kept: KeptSnapshot, seen: Seen) -> None:
        report = self._told[kept.uid] = build_report(kept, seen, self._told.get(kept.uid))
        self._around.journal.publish_snapshot(report)

    async def _compress(self, uid: str) -> None:
        """Compress a memory image, unless it is removed meanwhile; one that cannot be compressed is tried again."""
        kept = await asyncio.to_thread(self._captures.get, uid)
        if kept is None:
            return
        task = self._compressing[uid] = asyncio.create_task(self._captures.compress(uid))
        try:
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                _LOG.warning("Leaving a memory image as it is", extra={"snapshot": uid, "reason": str(error)})
            await self._look(kept)
        finally:
            await _ended(task)
            del self._compressing[uid]


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
