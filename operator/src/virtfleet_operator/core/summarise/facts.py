"""What is known of a machine when its status is made, the word for it, and the generation that word speaks of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from virtfleet_api.report import MachineReport, Phase
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine_status import PrintableStatus, VirtualMachineStatus
from virtfleet_operator.core.network.topology import PortPlan
from virtfleet_operator.core.verdict import Invalid, Unschedulable, Waiting

BINDING_LOST: Final = "BindingLost"
"""Reason of Waiting when a machine was bound and its node is not known."""

WORDS: Final[Mapping[Phase, PrintableStatus]] = {
    Phase.PROVISIONING: PrintableStatus.PROVISIONING,
    Phase.STARTING: PrintableStatus.STARTING,
    Phase.RUNNING: PrintableStatus.RUNNING,
    Phase.PAUSED: PrintableStatus.PAUSED,
    Phase.STOPPING: PrintableStatus.STOPPING,
    Phase.STOPPED: PrintableStatus.STOPPED,
    Phase.CRASH_LOOP: PrintableStatus.CRASHED,
    Phase.FAILED: PrintableStatus.CRASHED,
    Phase.ABSENT: PrintableStatus.PROVISIONING,
}
"""A machine that is absent from its node although it shall be there is about to be made again."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What the operator has decided about a machine, and what its node says."""

    verdict: Invalid | Waiting | Unschedulable | None = None
    node_name: str | None = None
    node_heard: bool = True
    """Whether the node's watch stream is alive; without it a report is only what was last known."""
    report: MachineReport | None = None
    ports: tuple[PortPlan, ...] = ()
    """Its cards on switches, as OVN is told of them."""


def word_of(meta: ObjectMeta, facts: MachineFacts) -> PrintableStatus:
    """Return the one word for a machine; what its author must act on comes before what is observed."""
    if meta.deletion_timestamp is not None:
        return PrintableStatus.TERMINATING
    if isinstance(facts.verdict, Invalid | Unschedulable):
        return PrintableStatus.INVALID if isinstance(facts.verdict, Invalid) else PrintableStatus.UNSCHEDULABLE
    if _lost(facts) or (facts.node_name is not None and not facts.node_heard):
        return PrintableStatus.UNKNOWN
    if facts.node_name is None:
        return PrintableStatus.SCHEDULING
    return WORDS[facts.report.phase] if facts.report else PrintableStatus.PROVISIONING


def _lost(facts: MachineFacts) -> bool:
    return isinstance(facts.verdict, Waiting) and facts.verdict.reason == BINDING_LOST


def generation_of(word: PrintableStatus, meta: ObjectMeta, old: VirtualMachineStatus, facts: MachineFacts) -> int:
    """Return the generation of the spec that the word speaks of.

    What the operator decides is about the spec it has read; what a node observes is about the document it was sent.
    """
    if word in (PrintableStatus.TERMINATING, PrintableStatus.INVALID, PrintableStatus.UNSCHEDULABLE):
        return meta.generation
    if facts.report is not None:
        return min(facts.report.generation, meta.generation)
    return (old.observed_generation or meta.generation) if word == PrintableStatus.UNKNOWN else meta.generation
