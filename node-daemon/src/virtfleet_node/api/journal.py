"""What changed, for the watch streams: the present state, and the last changes in order.

A reader holds a cursor, `<process>:<number>`. Changes it has not seen are given one by one while they are still kept;
else it gets the whole state again. So a slow or absent reader costs no memory beyond the ring.
"""

import asyncio
import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from typing import Final

from virtfleet_api.image import ImageReport
from virtfleet_api.node_api import (
    HEARTBEAT_SECONDS,
    Heartbeat,
    ImageChanged,
    ImageRemoved,
    MachineChanged,
    NodeChanged,
    Snapshot,
    SnapshotChanged,
    SnapshotRemoved,
    WatchEvent,
)
from virtfleet_api.report import MachineReport, NodeReport, Phase
from virtfleet_api.snapshot import SnapshotReport

RING: Final = 4096
"""Changes kept for readers that come back: about 4 MiB, and an hour of a busy node."""

_DIGITS: Final = 18
"""Digits of a number that a cursor may hold: 64 bits."""

_GONE: Final = 1024
"""Machines that are remembered as told of to be gone, so that they are told of once."""


class Journal:
    """The node's state as last published, with its recent history."""

    def __init__(self, node: NodeReport, ring: int = RING) -> None:
        self._process = secrets.token_hex(4)
        self._number = 0
        self._node = node
        self._machines: dict[str, MachineReport] = {}
        self._images: dict[str, ImageReport] = {}
        self._snapshots: dict[str, SnapshotReport] = {}
        self._gone: OrderedDict[str, MachineReport] = OrderedDict()
        self._changes: deque[tuple[int, WatchEvent]] = deque(maxlen=ring)
        self._wake = asyncio.Event()

    def publish_machine(self, report: MachineReport) -> None:
        """Tell of a machine, unless nothing changed. One that is Absent is told of once and then forgotten."""
        if report in (self._machines.get(report.uid), self._gone.get(report.uid)):
            return
        self._gone.pop(report.uid, None)
        if report.phase == Phase.ABSENT:
            self._machines.pop(report.uid, None)
            self._remember_gone(report)
        else:
            self._machines[report.uid] = report
        self._append(lambda cursor: MachineChanged(cursor=cursor, machine=report))

    def publish_image(self, report: ImageReport) -> None:
        """Tell of an image, unless nothing changed."""
        if self._images.get(report.uid) != report:
            self._images[report.uid] = report
            self._append(lambda cursor: ImageChanged(cursor=cursor, image=report))

    def remove_image(self, uid: str) -> None:
        """Tell that nothing of an image is left, unless that is known."""
        if self._images.pop(uid, None) is not None:
            self._append(lambda cursor: ImageRemoved(cursor=cursor, uid=uid))

    def publish_snapshot(self, report: SnapshotReport) -> None:
        """Tell of a snapshot, unless nothing changed."""
        if self._snapshots.get(report.uid) != report:
            self._snapshots[report.uid] = report
            self._append(lambda cursor: SnapshotChanged(cursor=cursor, snapshot=report))

    def remove_snapshot(self, uid: str) -> None:
        """Tell that nothing of a snapshot is left, unless that is known."""
        if self._snapshots.pop(uid, None) is not None:
            self._append(lambda cursor: SnapshotRemoved(cursor=cursor, uid=uid))

    def publish_node(self, report: NodeReport) -> None:
        """Tell of the inventory, unless nothing changed."""
        if self._node != report:
            self._node = report
            self._append(lambda cursor: NodeChanged(cursor=cursor, node=report))

    async def watch(
        self, cursor: str | None, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the state or what changed since the cursor, then every change, and a heartbeat when nothing changes."""
        seen = self._resume(cursor)
        while True:
            wake = self._wake
            for event in self._since(seen):
                yield event
                seen = int(event.cursor.partition(":")[2])
            if seen == self._number and not await _set_within(wake, heartbeat_seconds):
                yield Heartbeat(cursor=self._cursor(seen))

    def _resume(self, cursor: str | None) -> int | None:
        """Return the number of the last change the reader has seen; None when the cursor is not one of ours."""
        process, _, number = (cursor or "").partition(":")
        if process != self._process or not (number.isascii() and number.isdigit() and len(number) <= _DIGITS):
            return None
        return int(number) if int(number) <= self._number else None

    def _since(self, seen: int | None) -> tuple[WatchEvent, ...]:
        if seen == self._number:
            return ()
        oldest = self._changes[0][0] if self._changes else self._number + 1
        if seen is None or seen + 1 < oldest:
            return (self._snapshot(),)
        return tuple(event for number, event in self._changes if number > seen)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            cursor=self._cursor(self._number),
            node=self._node,
            machines=tuple(self._machines.values()),
            images=tuple(self._images.values()),
            snapshots=tuple(self._snapshots.values()),
        )

    def _remember_gone(self, report: MachineReport) -> None:
        self._gone[report.uid] = report
        if len(self._gone) > _GONE:
            self._gone.popitem(last=False)

    def _append(self, build: Callable[[str], WatchEvent]) -> None:
        self._number += 1
        self._changes.append((self._number, build(self._cursor(self._number))))
        self._wake.set()
        self._wake = asyncio.Event()

    def _cursor(self, number: int) -> str:
        return f"{self._process}:{number}"


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
