"""The conditions of a machine, each with one sentence: what is, and what to do if there is something to do."""

import re
from collections.abc import Iterator
from typing import Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.report import WAITING_FOR_COPIES, WIPING, MachineReport, Phase, StopReason
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine_status import PrintableStatus
from virtfleet_operator.core.summarise.bounds import count_of
from virtfleet_operator.core.summarise.conditions import NO, NOBODY_KNOWS, YES, Saying, Says
from virtfleet_operator.core.summarise.facts import MachineFacts
from virtfleet_operator.core.verdict import Invalid, Unschedulable, Waiting, plain
from virtfleet_operator.core.volumes import VOLUME_PENDING

SYNCHRONIZING: Final = "Synchronizing"
"""Reason while a node has been sent a spec that it has not reported on yet."""

_CHOOSING: Final = "A node is being chosen."
_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,63}\Z")
_MAX_FIELDS: Final = 16  # of RestartRequired; a sentence with more is not read

_STOPPED: Final = {
    None: "The machine is off.",
    StopReason.REQUESTED: "The machine is off, as asked.",
    StopReason.GUEST_SHUTDOWN: "The guest shut itself down.",
    StopReason.GUEST_CRASHED: "The guest crashed, and its run strategy leaves it off: see its console.",
    StopReason.QEMU_FAILED: "QEMU ended unexpectedly, and the run strategy leaves the machine off.",
    StopReason.NODE_RESTARTED: "The node restarted, and the run strategy leaves the machine off.",
}
_PASSING: Final = {
    Phase.PROVISIONING: "The node makes the machine.",
    Phase.STARTING: "The guest is being started.",
    Phase.STOPPING: "The guest is asked to shut down.",
    Phase.FAILED: "The node cannot make the machine run.",
    Phase.ABSENT: "The node makes the machine again.",
}


def machine_says(word: PrintableStatus, generation: int, meta: ObjectMeta, facts: MachineFacts) -> Iterator[Says]:
    """Say every condition of a machine; `generation` is the one that `word` speaks of."""
    holds, reason, message = _ready(word, facts)
    yield Says(ConditionType.READY, holds, reason, message, generation)
    yield _scheduled(meta, facts)
    yield _synchronized(meta, facts)
    report = facts.report
    if report is None or not facts.node_heard:
        return
    if report.phase in (Phase.RUNNING, Phase.PAUSED):
        yield _agent(report, generation)
    if report.phase == Phase.PAUSED:
        yield Says(ConditionType.PAUSED, YES, *_paused(report, "The guest is paused."), generation)
    held = (*report.held_compute, *report.held_disks, *report.held_interfaces, *report.held_devices)
    if report.restart_required or held:
        yield Says(ConditionType.RESTART_REQUIRED, YES, *_restart(report), generation)


def _restart(report: MachineReport) -> tuple[str, str]:
    """Say what waits for the next start, or for the guest."""
    held = " ".join(_held(report))
    if not report.restart_required:
        return "GuestHolds", held
    fields = plain(", ".join(report.restart_required[:_MAX_FIELDS]))
    remedy = held or "Restart the machine with `kubectl vm restart`."
    return "SpecChanged", f"Waiting for the next start: {fields}. {remedy}"


def _held(report: MachineReport) -> Iterator[str]:
    """Say what the guest has been asked for and does not do."""
    if report.held_compute:
        said = plain(", and ".join(report.held_compute[:_MAX_FIELDS]))
        yield f"The guest does not follow: {said}; it is asked again, or restart the machine with `kubectl vm restart`."
    if held := plain(", ".join((*report.held_disks, *report.held_interfaces, *report.held_devices)[:_MAX_FIELDS])):
        remedy = "unmount it there" if report.held_disks else "unload its driver there"
        yield f"The guest still uses {held}: {remedy}, or restart the machine with `kubectl vm restart`."


def _ready(word: PrintableStatus, facts: MachineFacts) -> Saying:
    if word == PrintableStatus.TERMINATING:
        return NO, "Terminating", _terminating(facts)
    waits = isinstance(facts.verdict, Waiting)
    observed = waits and facts.report and not _waits_for_volume(facts)
    if facts.node_name is None or (facts.verdict is not None and not observed):
        unknown = word == PrintableStatus.UNKNOWN and waits
        return NOBODY_KNOWS if unknown else NO, *_obstacle(facts, "Scheduling", _CHOOSING)
    if not facts.node_heard:
        return NOBODY_KNOWS, "NodeUnreachable", _unheard(facts)
    return _observed(facts.report) if facts.report else (NO, "Provisioning", _PASSING[Phase.PROVISIONING])


def _waits_for_volume(facts: MachineFacts) -> bool:
    """Tell whether a guest that is off waits for a volume: Kubernetes says why, and the node knows no more of it."""
    if not (facts.node_heard and isinstance(facts.verdict, Waiting) and facts.verdict.reason == VOLUME_PENDING):
        return False
    return facts.report is None or facts.report.phase in (Phase.PROVISIONING, Phase.STOPPED, Phase.FAILED)


def _observed(report: MachineReport) -> Saying:
    """Say what a node observes."""
    match report.phase:
        case Phase.RUNNING:
            return YES, "Running", "The guest runs."
        case Phase.PAUSED:
            return NO, *_paused(report, "The guest is paused: set spec.powerState to Running to let it go on.")
        case Phase.STOPPED:
            return NO, "Stopped", _STOPPED[report.last_stop]
        case Phase.CRASH_LOOP:
            times = f"{count_of(report.restarts)} times"
            said = f"The guest ended {times} soon after its start and is started again after a pause: see its console."
            return NO, "CrashLoopBackOff", said
    reason = report.reason if _REASON.match(report.reason) else report.phase.value
    return NO, reason, plain(report.message) or _PASSING[report.phase]


def _paused(report: MachineReport, asked: str) -> tuple[str, str]:
    """Return why a guest is paused: by its disks, as the node says, or as somebody has asked."""
    if _REASON.match(report.reason) and report.message:
        return report.reason, plain(report.message)
    return "Paused", asked


def _terminating(facts: MachineFacts) -> str:
    if facts.node_name is None:
        return "The machine is being deleted."
    if not facts.node_heard:
        return f"Node {facts.node_name} is not heard: the machine is removed once it answers."
    if isinstance(facts.verdict, Waiting):
        return facts.verdict.message
    stuck = facts.report is not None and (
        facts.report.phase == Phase.FAILED or facts.report.reason in {WAITING_FOR_COPIES, WIPING}
    )
    said = plain(facts.report.message) if stuck and facts.report else ""
    return f"Node {facts.node_name} removes the machine{': ' if said else '.'}{said}"


def _unheard(facts: MachineFacts) -> str:
    return f"Node {facts.node_name} is not heard: what is shown is what was last known."


def _scheduled(meta: ObjectMeta, facts: MachineFacts) -> Says:
    if facts.node_name is not None:
        said = YES, "Scheduled", f"The machine is bound to node {facts.node_name}."
    else:
        said = NO, *_obstacle(facts, "Scheduling", _CHOOSING)
    return Says(ConditionType.SCHEDULED, *said, meta.generation)


def _synchronized(meta: ObjectMeta, facts: MachineFacts) -> Says:
    return Says(ConditionType.SYNCHRONIZED, *_synchronisation(meta, facts), meta.generation)


def _synchronisation(meta: ObjectMeta, facts: MachineFacts) -> Saying:
    if facts.verdict is not None or facts.node_name is None:
        return NO, *_obstacle(facts, "Scheduling", _CHOOSING)
    if not facts.node_heard:
        return NOBODY_KNOWS, "NodeUnreachable", _unheard(facts)
    if facts.report is None or facts.report.generation < meta.generation:
        return NO, SYNCHRONIZING, f"Node {facts.node_name} has not reported on this spec yet."
    if facts.report.phase == Phase.FAILED:
        return NO, *_observed(facts.report)[1:]
    if facts.report.phase == Phase.RUNNING and _REASON.match(facts.report.reason):
        return NO, facts.report.reason, plain(facts.report.message) or "A change of the running guest failed."
    return YES, "Synchronized", f"Node {facts.node_name} works to this spec."


def _obstacle(facts: MachineFacts, reason: str, message: str) -> tuple[str, str]:
    """Return what stands against going on; reason and message when nothing does."""
    match facts.verdict:
        case Invalid(message=said):
            return "Invalid", said
        case Unschedulable(message=said):
            return "Unschedulable", said
        case Waiting(reason=why, message=said):
            return why, said
    return reason, message


def _agent(report: MachineReport, generation: int) -> Says:
    if report.agent_connected:
        return Says(ConditionType.AGENT_CONNECTED, YES, "Connected", "The guest agent answers.", generation)
    message = "No guest agent answers: addresses and a clean shutdown may be missing."
    return Says(ConditionType.AGENT_CONNECTED, NO, "Disconnected", message, generation)
