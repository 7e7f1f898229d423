"""Snapshots of machines: what is refused, how a capture is reported, and when it gives way. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from virtfleet_api.machine import Machine, Run, SnapshotDiskSource
from virtfleet_api.report import Phase
from virtfleet_api.snapshot import MachineSnapshot, SnapshotDiskReport, SnapshotReport
from virtfleet_api.steady import steady_allocation
from virtfleet_api.vm_snapshot import MAX_SNAPSHOTS, SnapshotIndication, SnapshotMode, SnapshotPhase
from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot
from virtfleet_node.core.errors import ConflictError, InvalidError, UnavailableError
from virtfleet_node.core.plan_restore import restore_pending
from virtfleet_node.core.record import ERROR_LENGTH, Record
from virtfleet_node.core.stored import StoredDisk

_STOPPING: Final = "The guest has been asked to shut down; the machine is captured afterwards."

_PASSING: Final = frozenset({Phase.STARTING, Phase.RUNNING, Phase.PAUSED, Phase.STOPPING})
"""Phases of a machine whose guest is not there only for a moment."""


@dataclass(frozen=True)
class Seen:
    """What is seen of a snapshot's files, and of its capture."""

    sizes: Mapping[CapturedDisk, int] | None = None
    """Bytes that the layers of its disks take."""
    memory_bytes: int | None = None
    percent: int | None = None
    """How far its capture is; None when none goes on."""
    waits: str = ""
    """Why it has not been captured yet, as a sentence."""


def check_same(kept: KeptSnapshot, wanted: MachineSnapshot) -> None:
    """Refuse another document under the same UID (ConflictError)."""
    if kept.document != wanted.model_copy(update={"present": True}):
        before = kept.document
        raise ConflictError(
            f"Snapshot {wanted.uid} is {before.namespace}/{before.name} on this node already, and a snapshot cannot be "
            "changed; make another one."
        )


def check_capture(
    wanted: MachineSnapshot, machine: Machine | None, there: Collection[StoredDisk], snapshots: int
) -> None:
    """Refuse a snapshot that cannot be captured, of which the machine has so many already.

    Raises:
        ConflictError: not now.
        InvalidError: never.
    """
    if machine is None:
        raise ConflictError(f"There is no machine {wanted.machine_uid} on this node.")
    if machine.run is Run.ABSENT:
        raise ConflictError(f"Machine {machine.namespace}/{machine.name} is being removed.")
    if snapshots >= MAX_SNAPSHOTS:
        raise ConflictError(f"The machine has {snapshots} snapshots, and cannot have more; delete some.")
    _check_disks(wanted, machine)
    if wanted.mode is SnapshotMode.MEMORY:
        _check_memory(machine)
    if not included(wanted, machine, there):
        raise ConflictError("The machine's disks are not there yet; capture it once they are.")


def _check_disks(wanted: MachineSnapshot, machine: Machine) -> None:
    """Refuse a snapshot of no disk, or without a disk that there is not: InvalidError."""
    names = {disk.name for disk in machine.hardware.own_disks}
    volumes = {disk.name for disk in machine.hardware.volumes}
    if unknown := sorted(set(wanted.exclude_disks) - names - volumes):
        has = _join(names | volumes)
        raise InvalidError(f"excludeDisks: the machine has no disks {', '.join(unknown)}; it has {has}.")
    if not names and volumes:
        raise InvalidError(
            f"The machine's only disks are volumes of claims ({_join(volumes)}), which are not captured; take a "
            "VolumeSnapshot of the claims."
        )
    if not names:
        raise InvalidError("The machine has no disks, so there is nothing to capture.")
    if not names - set(wanted.exclude_disks):
        raise InvalidError("excludeDisks leaves no disk to capture; leave out fewer.")


def _check_memory(machine: Machine) -> None:
    if machine.hardware.devices:
        devices = _join({device.name for device in machine.hardware.devices})
        raise InvalidError(f"The memory cannot be captured with devices of the host ({devices}); write mode: Disk.")
    check_memory(disk.name for disk in machine.hardware.volumes)


def check_memory(volumes: Iterable[str]) -> None:
    """Refuse to capture the memory of a guest with volumes of Kubernetes', whose names are not empty: InvalidError."""
    if names := {name for name in volumes if name}:
        raise InvalidError(
            f"The memory cannot be captured with volumes of claims ({_join(names)}), which would not be as the guest "
            "knows them when it goes on; write mode: Disk."
        )


def included(wanted: MachineSnapshot, machine: Machine, there: Collection[StoredDisk]) -> tuple[StoredDisk, ...]:
    """Return the disks to capture, those that are there."""
    names = {(disk.pool, disk.name) for disk in machine.hardware.own_disks if disk.name not in wanted.exclude_disks}
    return tuple(disk for disk in there if (disk.pool, disk.name) in names)


def check_removal(
    uid: str, machines: Iterable[tuple[Machine, Collection[StoredDisk]]], served: Collection[str]
) -> None:
    """Refuse to remove a snapshot that machines are restored to or made from just now (ConflictError).

    `machines` are those of the node with their disks, `served` the tokens of restores that are done.
    """
    kept = ((machine, there) for machine, there in machines if machine.run is not Run.ABSENT)
    users = [machine for machine, there in kept if _needs(machine, uid, there, served)]
    if users:
        names = _join({f"{machine.namespace}/{machine.name}" for machine in users})
        raise ConflictError(f"The snapshot stays until these machines are restored to it or made from it: {names}.")


def _needs(machine: Machine, uid: str, there: Collection[StoredDisk], served: Collection[str]) -> bool:
    made = {(disk.pool, disk.name) for disk in there}
    from_it = (
        isinstance(disk.source, SnapshotDiskSource)
        and disk.source.snapshot_uid == uid
        and (disk.pool, disk.name) not in made
        for disk in machine.hardware.own_disks
    )
    restore = machine.restore
    return any(from_it) or (restore is not None and restore.snapshot_uid == uid and restore.token not in served)


def check_wanted(desired: Machine, record: Record) -> None:
    """End the capture of a guest that shall stop, which never waits: UnavailableError."""
    if _shall_stop(desired, record):
        raise UnavailableError(_STOPPING)


def _shall_stop(desired: Machine, record: Record) -> bool:
    return desired.run in {Run.STOPPED, Run.ABSENT} or desired.start_token != record.served_token


def waits_for(desired: Machine, record: Record, told: Phase | None, *, active: bool) -> str:
    """Say why a machine is not captured just now, as a sentence; empty when it can be.

    `told` is the phase that was last reported: a machine that is off for a moment is not captured without its memory.
    """
    if record.restoring is not None or restore_pending(desired, record):
        return "The machine is being restored; it is captured afterwards."
    if active and (record.stopping_since is not None or _shall_stop(desired, record)):
        return _STOPPING
    if not active and told in _PASSING:
        return "The machine is being started or switched off; it is captured afterwards."
    return ""


def indications(*, running: bool, memory: bool, frozen: bool) -> tuple[SnapshotIndication, ...]:
    """Return how a machine was captured."""
    if not running:
        return (SnapshotIndication.OFFLINE,)
    if memory:
        return SnapshotIndication.ONLINE, SnapshotIndication.MEMORY
    how = SnapshotIndication.GUEST_AGENT if frozen else SnapshotIndication.CRASH_CONSISTENT
    return SnapshotIndication.ONLINE, how


def failed(kept: KeptSnapshot, reason: str, error: str) -> KeptSnapshot:
    """Return what is kept of one that cannot be captured."""
    said = " ".join(error.split())[:ERROR_LENGTH] or "It failed for an unknown reason."
    return kept.model_copy(update={"reason": reason, "error": said})


def build_report(kept: KeptSnapshot, seen: Seen, before: SnapshotReport | None = None) -> SnapshotReport:
    """Return what is told of a snapshot; sizes as they were told before, where they have not moved by a step."""
    document, captured = kept.document, kept.captured
    report = SnapshotReport(
        uid=document.uid,
        namespace=document.namespace,
        name=document.name,
        machine_uid=document.machine_uid,
        phase=_phase(kept, seen),
        reason=kept.reason,
        message=kept.error or ("" if captured else seen.waits),
        progress_percent=None if captured or kept.error else seen.percent,
    )
    return report if captured is None else report.model_copy(update=_figures(captured, seen, before))


def removed(wanted: MachineSnapshot) -> SnapshotReport:
    """Return what is told of a snapshot of which nothing is left."""
    return SnapshotReport(
        uid=wanted.uid,
        namespace=wanted.namespace,
        name=wanted.name,
        machine_uid=wanted.machine_uid,
        phase=SnapshotPhase.DELETING,
    )


def _phase(kept: KeptSnapshot, seen: Seen) -> SnapshotPhase:
    if kept.captured is not None:
        return SnapshotPhase.READY
    if kept.error:
        return SnapshotPhase.FAILED
    return SnapshotPhase.PENDING if seen.percent is None else SnapshotPhase.CAPTURING


def _figures(captured: Captured, seen: Seen, before: SnapshotReport | None) -> dict[str, object]:
    told = {(disk.pool, disk.name): disk.size_bytes for disk in before.disks} if before else {}
    sizes = seen.sizes or {}
    return {
        "created_at": captured.created_at,
        "pause_milliseconds": captured.pause_milliseconds,
        "memory_bytes": seen.memory_bytes,
        "disks": tuple(
            SnapshotDiskReport(
                name=disk.name,
                pool=disk.pool,
                capacity_bytes=disk.capacity_bytes,
                size_bytes=steady_allocation(told.get((disk.pool, disk.name)), sizes.get(disk, 0)),
            )
            for disk in captured.disks
        ),
        "indications": captured.indications,
        "parent_uid": captured.parent_uid or None,
    }


def _join(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
