"""What one node reported last, in memory: rebuilt from its watch stream, never stored.

What a node says is about its own machines only; whoever reads a report checks that the machine is bound to that node.
"""

from enum import Enum, auto
from typing import Final, Protocol

from virtfleet_api.image import ImageReport
from virtfleet_api.node_api import (
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
from virtfleet_api.report import MachineReport, NodeReport, Phase, RetainedDisk
from virtfleet_api.snapshot import SnapshotReport
from virtfleet_operator.fleet.errors import NodeProtocolError

MOST_REPORTS: Final = 20_000
"""Machines, images or snapshots of one node; more is not a hypervisor but an attempt to fill the operator's memory."""


class Contact(Enum):
    """Whether the node is heard."""

    CONNECTING = auto()
    """Not heard since the operator started, and not yet for so long that this means anything."""
    HEARD = auto()
    LOST = auto()


class FleetListener(Protocol):
    """Who wants to know what changed at nodes."""

    def machine_changed(self, node: str, uid: str) -> None:
        """A report of this machine came or went."""

    def image_changed(self, node: str, uid: str) -> None:
        """A report of this image came or went."""

    def snapshot_changed(self, node: str, uid: str) -> None:
        """A report of this snapshot of a machine came or went."""

    def node_changed(self, node: str) -> None:
        """Its inventory or its contact changed."""

    def everything_changed(self, node: str) -> None:
        """All it has reported is new, or it is heard no more: look at every object that concerns it."""


class NodeState:
    """The reports of one node."""

    def __init__(self, name: str, listener: FleetListener) -> None:
        self.name = name
        self.contact = Contact.CONNECTING
        self.cursor: str | None = None
        self.report: NodeReport | None = None
        self.machines: dict[str, MachineReport] = {}
        self.images: dict[str, ImageReport] = {}
        self.snapshots: dict[str, SnapshotReport] = {}
        """Snapshots of machines, by their UID."""
        self.acknowledged: dict[str, str] = {}
        """Digest of the document that this daemon process acknowledged last, by UID of machine, image or snapshot."""
        self.gone: dict[str, tuple[RetainedDisk, ...] | None] = {}
        """What was kept of machines of which the node said that they are absent, since it was last told otherwise.

        None where it has not said what it kept."""
        self.instance = 0
        """Counts the snapshots: what was acknowledged to an earlier one may not be known to this one."""
        self._listener = listener

    def take(self, event: WatchEvent) -> None:
        """Take one line of the stream into account."""
        self.cursor = event.cursor
        self._mark_heard(full=isinstance(event, Snapshot))
        match event:
            case Snapshot():
                self._take_all(event)
            case MachineChanged(machine=machine):
                self._take_machine(machine)
            case ImageChanged(image=image):
                self._take_image(image)
            case ImageRemoved(uid=uid):
                self.images.pop(uid, None)
                self.acknowledged.pop(uid, None)
                self._listener.image_changed(self.name, uid)
            case SnapshotChanged(snapshot=snapshot):
                self._take_snapshot(snapshot)
            case SnapshotRemoved(uid=uid):
                self.snapshots.pop(uid, None)
                self.acknowledged.pop(uid, None)
                self._listener.snapshot_changed(self.name, uid)
            case NodeChanged(node=node):
                self.report = node
                self._listener.node_changed(self.name)
            case Heartbeat():
                pass

    def mark_lost(self) -> None:
        """Note that the node has been silent for too long."""
        if self.contact is not Contact.LOST:
            self.contact = Contact.LOST
            self._listener.everything_changed(self.name)

    def take_answer(self, report: MachineReport) -> None:
        """Take what an instruction was answered with: absent is final, all else comes by the stream."""
        if report.phase is Phase.ABSENT:
            self.mark_gone(report.uid, report.kept_disks)

    def take_snapshot_answer(self, report: SnapshotReport) -> None:
        """Take what the instruction to capture was answered with, unless the stream has told more meanwhile.

        A snapshot that the node has stored must not pass for one that it holds nothing of.
        """
        self.snapshots.setdefault(report.uid, report)

    def mark_gone(self, uid: str, kept: tuple[RetainedDisk, ...] | None = None) -> None:
        """Note that the node has nothing of this machine but these disks."""
        self.machines.pop(uid, None)
        # If the machine shall be there, it must be instructed again.
        self.acknowledged.pop(uid, None)
        self.gone[uid] = kept
        _check_size(self.name, len(self.gone))

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a machine whose object is gone."""
        self.acknowledged.pop(uid, None)
        self.gone.pop(uid, None)

    def _mark_heard(self, *, full: bool) -> None:
        if self.contact is not Contact.HEARD:
            self.contact = Contact.HEARD
            if not full:
                self._listener.everything_changed(self.name)

    def _take_all(self, event: Snapshot) -> None:
        _check_size(self.name, max(len(event.machines), len(event.images), len(event.snapshots)))
        self.report = event.node
        self.machines = {m.uid: m for m in event.machines if m.phase is not Phase.ABSENT}
        self.images = {i.uid: i for i in event.images}
        self.snapshots = {s.uid: s for s in event.snapshots}
        # A new process, or one that has forgotten: it may have lost what it acknowledged before it was stored.
        self.acknowledged.clear()
        self.gone.clear()
        self.instance += 1
        self._listener.everything_changed(self.name)

    def _take_machine(self, machine: MachineReport) -> None:
        if machine.phase is Phase.ABSENT:
            self.mark_gone(machine.uid, machine.kept_disks)
        else:
            self.machines[machine.uid] = machine
            self.gone.pop(machine.uid, None)
            _check_size(self.name, len(self.machines))
        self._listener.machine_changed(self.name, machine.uid)

    def _take_image(self, image: ImageReport) -> None:
        self.images[image.uid] = image
        _check_size(self.name, len(self.images))
        self._listener.image_changed(self.name, image.uid)

    def _take_snapshot(self, snapshot: SnapshotReport) -> None:
        self.snapshots[snapshot.uid] = snapshot
        _check_size(self.name, len(self.snapshots))
        self._listener.snapshot_changed(self.name, snapshot.uid)


def _check_size(name: str, size: int) -> None:
    if size > MOST_REPORTS:
        raise NodeProtocolError(f"{name} reports more than {MOST_REPORTS} machines, images or snapshots.")
