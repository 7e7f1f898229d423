"""The snapshots of a simulated node: a machine is captured at once, and what was captured is removed at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from virtfleet_api.report import DiskReport
from virtfleet_api.snapshot import MachineSnapshot, SnapshotDiskReport, SnapshotReport
from virtfleet_api.vm_snapshot import SnapshotIndication, SnapshotMode, SnapshotPhase
from virtfleet_node.api.journal import Journal
from virtfleet_node.core.errors import ConflictError

MIB = 1 << 20


@dataclass
class SimulatedSnapshots:
    """What a simulated node holds of snapshots; tests say how a capture ends."""

    phase: SnapshotPhase = SnapshotPhase.READY
    keeps: bool = False
    """It does not get done with a removal."""
    reports: dict[str, SnapshotReport] = field(default_factory=dict)
    told: list[MachineSnapshot] = field(default_factory=list)

    def put(self, wanted: MachineSnapshot, disks: Sequence[DiskReport] | None, journal: Journal) -> SnapshotReport:
        """Capture or remove; a machine without `disks` is not here."""
        first = next((found for found in self.told if found.uid == wanted.uid), wanted)
        self.told.append(wanted)
        if first.model_copy(update={"present": wanted.present}) != wanted:
            raise ConflictError(f"Snapshot {wanted.uid} is on this node already, and cannot be changed.")
        if not wanted.present:
            return self._remove(wanted, journal)
        if wanted.uid not in self.reports:
            if disks is None:
                raise ConflictError(f"There is no machine {wanted.machine_uid}.")
            self.reports[wanted.uid] = self._capture(wanted, disks)
        journal.publish_snapshot(self.reports[wanted.uid])
        return self.reports[wanted.uid]

    def end(self, uid: str, phase: SnapshotPhase, journal: Journal, message: str = "") -> None:
        """Have a capture go on to this phase."""
        last = self.reports[uid]
        wanted = next(found for found in reversed(self.told) if found.uid == uid)
        disks = [disk for disk in last.disks if disk.name not in wanted.exclude_disks]
        self.reports[uid] = _report(wanted, phase, disks, last.parent_uid).model_copy(update={"message": message})
        journal.publish_snapshot(self.reports[uid])

    def _capture(self, wanted: MachineSnapshot, disks: Sequence[DiskReport]) -> SnapshotReport:
        taken = [
            SnapshotDiskReport(name=disk.name, pool=disk.pool, capacity_bytes=disk.capacity_bytes, size_bytes=MIB)
            for disk in disks
            if disk.name not in wanted.exclude_disks
        ]
        before = [report.uid for report in self.reports.values() if report.machine_uid == wanted.machine_uid]
        return _report(wanted, self.phase, taken, before[-1] if before else None)

    def _remove(self, wanted: MachineSnapshot, journal: Journal) -> SnapshotReport:
        gone = _report(wanted, SnapshotPhase.DELETING, (), None)
        if self.keeps and wanted.uid in self.reports:
            self.reports[wanted.uid] = gone
            journal.publish_snapshot(gone)
        else:
            self.reports.pop(wanted.uid, None)
            journal.remove_snapshot(wanted.uid)
        return gone


def _report(
    wanted: MachineSnapshot, phase: SnapshotPhase, disks: Sequence[SnapshotDiskReport], parent: str | None
) -> SnapshotReport:
    ready, memory = phase is SnapshotPhase.READY, wanted.mode is SnapshotMode.MEMORY
    how = (SnapshotIndication.MEMORY,) if memory else (SnapshotIndication.CRASH_CONSISTENT,)
    return SnapshotReport(
        uid=wanted.uid,
        namespace=wanted.namespace,
        name=wanted.name,
        machine_uid=wanted.machine_uid,
        phase=phase,
        progress_percent=42 if phase is SnapshotPhase.CAPTURING else None,
        created_at=datetime.now(UTC).replace(microsecond=0) if ready else None,
        pause_milliseconds=7 if ready else None,
        memory_bytes=64 * MIB if ready and memory else None,
        disks=tuple(disks),
        indications=(SnapshotIndication.ONLINE, *how) if ready else (),
        parent_uid=parent,
    )
