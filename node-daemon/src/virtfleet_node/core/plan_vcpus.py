"""What can be changed of the vCPUs while a guest runs, as the next actions."""

from collections.abc import Iterator
from datetime import datetime

from virtfleet_api.machine import Machine
from virtfleet_node.core.compute import AttachedVcpus
from virtfleet_node.core.compute_actions import (
    PlugVcpus,
    SetGuestVcpus,
    UnplugVcpus,
)
from virtfleet_node.core.due import Change, ask, plug_key, unplug_key, vcpus_key
from virtfleet_node.core.observed import HOLDS_AFTER, DomainState, Observed
from virtfleet_node.core.wanted_compute import can_unplug, wanted_vcpus


def plan_vcpus(desired: Machine, observed: Observed, now: datetime) -> Iterator[Change]:
    """Return the changes of a running guest's vCPUs.

    Those that the guest has and does not use are brought online before more are plugged.
    """
    seen, wanted = observed.domain.vcpus, wanted_vcpus(desired.hardware, observed)
    if seen is None or wanted is None or observed.domain.state is not DomainState.RUNNING:
        return
    there = min(wanted, seen.plugged)
    differs = observed.domain.agent_connected and _differs(there, seen, observed)
    if differs and not _may_unplug(wanted, seen, observed, now):
        yield ask(SetGuestVcpus(there), vcpus_key(there), observed, now)
    if wanted > seen.plugged:
        yield ask(PlugVcpus(wanted), plug_key(wanted), observed, now)
    elif wanted < seen.plugged and can_unplug(seen, observed):
        yield ask(UnplugVcpus(wanted), unplug_key(wanted), observed, now)


def _differs(there: int, seen: AttachedVcpus, observed: Observed) -> bool:
    """Tell whether the guest uses another number; as long as nobody knows, it uses what it has."""
    return (seen.plugged if observed.guest_vcpus is None else observed.guest_vcpus) != there


def _may_unplug(wanted: int, seen: AttachedVcpus, observed: Observed, now: datetime) -> bool:
    """Tell whether it is to be seen yet if the guest lets QEMU take vCPUs away, which is better than to stop them."""
    if wanted >= seen.plugged or not can_unplug(seen, observed):
        return False
    asking = observed.asked.get(unplug_key(wanted))
    return asking is None or now < asking.first + HOLDS_AFTER
