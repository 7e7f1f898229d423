"""The status of a VirtualMachine."""

from datetime import datetime
from typing import Final

from virtfleet_api.report import Phase
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_operator.core.summarise.conditions import conditions
from virtfleet_operator.core.summarise.facts import MachineFacts, generation_of, word_of
from virtfleet_operator.core.summarise.machine_conditions import machine_says
from virtfleet_operator.core.summarise.observed import Observed, kept, observed

_FAILING: Final = frozenset({Phase.FAILED, Phase.CRASH_LOOP})


def summarise_machine(
    meta: ObjectMeta, old: VirtualMachineStatus, facts: MachineFacts, now: datetime
) -> VirtualMachineStatus:
    """Return the status of a machine. The node's name, once written, stays: it is the memory of the binding."""
    word = word_of(meta, facts)
    generation = generation_of(word, meta, old, facts)
    shown = _shown(old, facts)
    return VirtualMachineStatus(
        observed_generation=_advanced(old.observed_generation, generation, meta.generation),
        printable_status=word,
        node_name=facts.node_name or old.node_name,
        machine=shown.machine,
        disks=shown.disks,
        interfaces=shown.interfaces,
        devices=shown.devices,
        guest=shown.guest,
        conditions=conditions(
            old.conditions, now, tuple(machine_says(word, generation, meta, facts)), failed=_fails(facts)
        ),
    )


def _fails(facts: MachineFacts) -> bool:
    """Tell whether the node tries in vain, as far as it is heard."""
    return facts.node_heard and facts.report is not None and facts.report.phase in _FAILING


def _shown(old: VirtualMachineStatus, facts: MachineFacts) -> Observed:
    """Show the report; without one, nothing if the node says so, else what was last known."""
    if facts.report is not None:
        return observed(facts.report, old, facts.ports)
    return Observed() if facts.node_name is not None and facts.node_heard else kept(old)


def _advanced(old: int, new: int, latest: int) -> int:
    """Never go back, unless the object itself did (restored from a backup)."""
    return max(old, new) if old <= latest else new
