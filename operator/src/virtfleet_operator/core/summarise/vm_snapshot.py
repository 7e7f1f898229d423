"""The status of a VMSnapshot: what its node says of it, kept once it has been captured."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.snapshot import SnapshotReport
from virtfleet_api.virtual_machine import VirtualMachineSpec
from virtfleet_api.vm_snapshot import SnapshotDiskStatus, SnapshotPhase, VMSnapshotStatus
from virtfleet_operator.core.summarise.bounds import count_of, size_of
from virtfleet_operator.core.summarise.conditions import NO, NOBODY_KNOWS, YES, Saying, Says, conditions
from virtfleet_operator.core.verdict import Waiting, join_problems, plain

SETTLED: Final = frozenset({SnapshotPhase.READY, SnapshotPhase.FAILED})
"""Phases that a snapshot stays in, whatever becomes of its machine."""

_MAX_DISKS: Final = 64
_MAX_NAME: Final = 63
_FIRST_YEAR: Final = 1971
_LAST_YEAR: Final = 2999


@dataclass(frozen=True, slots=True)
class Told:
    """The node that is told of the snapshot, and the machine as it was then."""

    node_name: str
    machine_uid: str
    machine_spec: VirtualMachineSpec


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What a VMSnapshot's status is made from."""

    problems: Sequence[str] = ()
    waiting: Waiting | None = None
    """What keeps it from being captured or removed."""
    told: Told | None = None
    """Given when the node is about to be told for the first time."""
    report: SnapshotReport | None = None
    heard: bool = True
    """Whether the node's watch stream is alive."""
    left: bool = False
    """The node left the fleet."""
    machine_gone: bool = False
    parent: str | None = None
    """Name of the VMSnapshot that the report names, if there is one."""


def summarise_snapshot(
    meta: ObjectMeta, old: VMSnapshotStatus, facts: SnapshotFacts, now: datetime
) -> VMSnapshotStatus:
    """Return the status of a snapshot; what was captured stays known when its node is away."""
    phase = _phase(meta, old, facts)
    ready = Says(ConditionType.READY, *_ready(phase, old, facts), meta.generation)
    told = facts.told
    captured = _captured(facts.report, facts.parent) if facts.report else {}
    return old.model_copy(
        update=captured
        | {
            "observed_generation": meta.generation,
            "phase": phase,
            "ready_to_use": phase is SnapshotPhase.READY and not _is_missing(facts),
            "progress": _progress(phase, facts.report),
            "node_name": told.node_name if told else old.node_name,
            "virtual_machine_uid": told.machine_uid if told else old.virtual_machine_uid,
            "virtual_machine_spec": told.machine_spec if told else old.virtual_machine_spec,
            "conditions": conditions(old.conditions, now, [ready], failed=phase is SnapshotPhase.FAILED),
        }
    )


def _captured(report: SnapshotReport, parent: str | None) -> dict[str, Any]:
    """Return what a node says of the captured instant."""
    named = {plain(disk.name, _MAX_NAME): disk for disk in report.disks[:_MAX_DISKS]}
    disks = tuple(
        SnapshotDiskStatus(
            name=name,
            pool=plain(disk.pool, _MAX_NAME),
            capacity=capacity,
            size=size_of(disk.size_bytes),
        )
        for name, disk in named.items()
        if (capacity := size_of(disk.capacity_bytes)) is not None
    )
    memory = size_of(report.memory_bytes)
    whole = (memory or 0) + sum(disk.size or 0 for disk in disks)
    return {
        "creation_time": _instant(report.created_at),
        "pause_milliseconds": None if report.pause_milliseconds is None else count_of(report.pause_milliseconds),
        "size": size_of(whole),
        "memory_size": memory,
        "disks": disks,
        "indications": tuple(dict.fromkeys(report.indications)),
        "parent": parent,
    }


def _instant(at: datetime | None) -> datetime | None:
    """Return a time of a node, in UTC; one that cannot be reckoned with is none."""
    if at is None or not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        return None
    return (at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)).replace(microsecond=0)


def _phase(meta: ObjectMeta, old: VMSnapshotStatus, facts: SnapshotFacts) -> SnapshotPhase:
    if meta.deletion_timestamp is not None:
        return SnapshotPhase.DELETING
    if facts.report is not None:
        return facts.report.phase
    if old.phase in SETTLED:
        return old.phase
    if old.node_name is not None and (facts.left or (facts.machine_gone and facts.heard)):
        return SnapshotPhase.FAILED
    return old.phase if old.node_name is not None and not facts.heard else SnapshotPhase.PENDING


def _ready(phase: SnapshotPhase, old: VMSnapshotStatus, facts: SnapshotFacts) -> Saying:
    if phase is SnapshotPhase.DELETING:
        waiting = facts.waiting or Waiting("Terminating", "The node removes what was captured.")
        return NO, waiting.reason, waiting.message
    if phase is SnapshotPhase.FAILED:
        return NO, *_failed(old, facts)
    if facts.problems:
        return NO, "Invalid", join_problems(facts.problems)
    if phase is SnapshotPhase.READY:
        return _held(old, facts)
    return _coming(phase, old, facts)


def _coming(phase: SnapshotPhase, old: VMSnapshotStatus, facts: SnapshotFacts) -> Saying:
    """Say what a snapshot that is not captured yet waits for."""
    if not facts.heard and old.node_name is not None:
        return NO, "NodeNotHeard", f"Node {old.node_name} does not answer; this goes on once it does."
    if facts.waiting is not None:
        return NO, facts.waiting.reason, facts.waiting.message
    if phase is SnapshotPhase.CAPTURING:
        return NO, "Capturing", "The node captures the machine."
    return NO, "Pending", plain(facts.report.message if facts.report else "") or "The node is about to capture it."


def _held(old: VMSnapshotStatus, facts: SnapshotFacts) -> Saying:
    """Say whether what was captured is within reach."""
    node = old.node_name
    if facts.left:
        said = f"Node {node} left the fleet, and the snapshot with it; bring it back, or delete this object."
        return NO, "NodeGone", said
    if not facts.heard:
        return NOBODY_KNOWS, "NodeNotHeard", f"Node {node} does not answer; the snapshot is as it was last known."
    if facts.report is None:
        said = f"Node {node} does not find the snapshot: see whether its storage pool can be read."
        return NO, "NotFound", said
    if facts.machine_gone:
        return YES, "MachineGone", "Its VirtualMachine is gone; new machines can be made from the snapshot."
    return YES, "Ready", "The snapshot can be restored."


def _failed(old: VMSnapshotStatus, facts: SnapshotFacts) -> tuple[str, str]:
    """Repeat the node's words, or what was said when it was last heard."""
    report = facts.report
    if report is not None:
        reason = report.reason if report.reason.isascii() and report.reason.isalnum() else "CaptureFailed"
        return reason[:64], f"Node {old.node_name}: {plain(report.message) or 'the machine was not captured'}"
    before = next((c for c in old.conditions if c.type == ConditionType.READY), None)
    if old.phase is SnapshotPhase.FAILED and before is not None:
        return before.reason, before.message
    if facts.left:
        return "NodeGone", f"Node {old.node_name} left the fleet before the machine was captured."
    return "MachineGone", "The VirtualMachine was deleted before it was captured."


def _is_missing(facts: SnapshotFacts) -> bool:
    """Tell whether nobody has it who can be asked; a node that is silent has it as far as is known."""
    return facts.left or (facts.heard and facts.report is None)


def _progress(phase: SnapshotPhase, report: SnapshotReport | None) -> str | None:
    percent = report.progress_percent if report and phase is SnapshotPhase.CAPTURING else None
    return None if percent is None else f"{percent}%"
