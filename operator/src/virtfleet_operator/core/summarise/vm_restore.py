"""The status of a VMRestore: how far its machines are, by what their node says."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.report import RestoreReport
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_restore import RestoredMachine, RestorePhase, VMRestoreStatus
from virtfleet_operator.core.restores import ENDED
from virtfleet_operator.core.summarise.conditions import INVALID, NO, YES, Saying, Says, conditions
from virtfleet_operator.core.verdict import Waiting, plain, quote

_OFF: Final = "The machine shall be off: its disks are restored, and it is not started."


@dataclass(frozen=True, slots=True)
class RestoreFacts:
    """What a VMRestore's status is made from."""

    snapshot: str = ""
    waiting: Waiting | None = None
    """What keeps it from beginning."""
    failure: Waiting | None = None
    """Why it has ended before anything was touched."""
    machines: tuple[RestoredMachine, ...] = ()
    """Given once it has begun."""
    snapshot_before: str | None = None


@dataclass(frozen=True, slots=True)
class MachineView:
    """What is known of one machine of a restore."""

    there: bool
    """Its object is there, and is not being deleted."""
    node_name: str | None = None
    heard: bool = False
    report: RestoreReport | None = None
    obstacle: str = ""
    """What the machine's own conditions say is wrong."""
    off: bool = False
    """It shall be off."""


def restored_machine(old: RestoredMachine, token: str, seen: MachineView) -> RestoredMachine:
    """Return how far a machine is; one that has ended stays so."""
    if old.phase in ENDED:
        return old
    report = seen.report if seen.report and seen.report.token == token else None
    said = plain(report.message) if report else ""
    if not seen.there:
        return _at(old, RestorePhase.FAILED, "The VirtualMachine was deleted.")
    if report is not None and report.done and said:
        return _at(old, RestorePhase.FAILED, f"Node {seen.node_name}: {said}")
    if report is not None and report.done:
        left_out = _OFF if seen.off and not report.warm else plain(report.note) or None
        return old.model_copy(update={"phase": RestorePhase.SUCCEEDED, "warm": report.warm, "message": left_out})
    return _at(old, RestorePhase.RESTORING, said or _goes_on(seen))


def _at(old: RestoredMachine, phase: RestorePhase, message: str) -> RestoredMachine:
    return old.model_copy(update={"phase": phase, "message": message})


def _goes_on(seen: MachineView) -> str:
    if seen.node_name is None:
        return plain(seen.obstacle) or "It is about to be placed on the snapshot's node."
    if not seen.heard:
        return f"Node {seen.node_name} does not answer; this goes on once it does."
    return plain(seen.obstacle) or f"Node {seen.node_name} is about to restore it."


def summarise_restore(meta: ObjectMeta, old: VMRestoreStatus, facts: RestoreFacts, now: datetime) -> VMRestoreStatus:
    """Return the status of a restore that had not ended."""
    phase, time = _phase(facts), now.replace(microsecond=0)
    done = sum(machine.phase is RestorePhase.SUCCEEDED for machine in facts.machines)
    complete = Says(ConditionType.COMPLETE, *_complete(phase, facts), meta.generation)
    said = [complete]
    if phase not in ENDED and complete.reason != INVALID:
        said.append(replace(complete, type=ConditionType.RECONCILING, status=YES))
    begun = phase is not RestorePhase.PENDING and bool(facts.machines)
    return VMRestoreStatus(
        observed_generation=meta.generation,
        phase=phase,
        machines=facts.machines,
        done=f"{done}/{len(facts.machines)}" if facts.machines else None,
        start_time=old.start_time or (time if begun else None),
        completion_time=time if phase in ENDED else None,
        snapshot_before=facts.snapshot_before or old.snapshot_before,
        conditions=conditions(old.conditions, now, said, failed=phase is RestorePhase.FAILED),
    )


def _phase(facts: RestoreFacts) -> RestorePhase:
    if facts.failure is not None:
        return RestorePhase.FAILED
    if facts.waiting is not None:
        return RestorePhase.PENDING
    phases = {machine.phase for machine in facts.machines}
    if phases <= {RestorePhase.SUCCEEDED}:
        return RestorePhase.SUCCEEDED
    return RestorePhase.FAILED if phases <= ENDED else RestorePhase.RESTORING


def _complete(phase: RestorePhase, facts: RestoreFacts) -> Saying:
    if facts.failure is not None:
        return NO, facts.failure.reason, facts.failure.message
    if facts.waiting is not None:
        return NO, facts.waiting.reason, facts.waiting.message
    machines = facts.machines
    if phase is RestorePhase.FAILED:
        return NO, "Failed", _failed(machines)
    if phase is RestorePhase.SUCCEEDED:
        return YES, "Restored", _restored(machines, facts.snapshot)
    count = "The VirtualMachine is" if len(machines) == 1 else f"{len(machines)} VirtualMachines are"
    return NO, "Restoring", f"{count} being restored from VMSnapshot {quote(facts.snapshot)}."


def _restored(machines: Sequence[RestoredMachine], snapshot: str) -> str:
    warm = Counter(machine.warm for machine in machines)[True]
    if len(machines) == 1:
        goes_on = ", and goes on with its memory" if warm else ""
        left_out = f" {machines[0].message}" if machines[0].message else ""
        return f"VirtualMachine {machines[0].name} is restored from VMSnapshot {quote(snapshot)}{goes_on}.{left_out}"
    goes_on = f", {warm} of them with its memory" if warm else ""
    return f"{len(machines)} VirtualMachines are restored from VMSnapshot {quote(snapshot)}{goes_on}."


def _failed(machines: Sequence[RestoredMachine]) -> str:
    failed = [machine for machine in machines if machine.phase is RestorePhase.FAILED]
    first = f"VirtualMachine {failed[0].name}: {failed[0].message}"
    return first if len(failed) == 1 else f"{len(failed)} of {len(machines)} failed; {first}"
