"""What can be changed of the memory while a guest runs, as the next actions."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from virtfleet_api.machine import Machine
from virtfleet_node.core.compute import AttachedMemory
from virtfleet_node.core.compute_actions import (
    AttachDimm,
    DetachDimm,
    RequestMemory,
    SetBalloon,
)
from virtfleet_node.core.due import Change, ask, balloon_key, memory_key
from virtfleet_node.core.memory_target import MemoryTarget, memory_target, takes_nothing
from virtfleet_node.core.observed import DomainState, Observed
from virtfleet_node.core.wanted_compute import wanted_memory

TAKES_AFTER: Final = timedelta(seconds=10)
"""A guest with a driver for virtio-mem takes memory within a second; one that boots has its driver loaded by then."""


def plan_memory(desired: Machine, observed: Observed, now: datetime) -> Iterator[Change]:
    """Return the changes of a running guest's memory."""
    seen, wanted = observed.domain.memory, wanted_memory(desired.hardware, observed)
    if seen is None or wanted is None or observed.domain.state is not DomainState.RUNNING:
        return
    target = memory_target(wanted, seen, refused=_refuses(seen, observed, now))
    if seen.balloon_bytes != target.balloon_bytes:
        level = seen.boot_bytes + seen.dimm_bytes - target.balloon_bytes
        yield ask(SetBalloon(level), balloon_key(level), observed, now)
    yield from _plan_device(target, seen, observed, now)
    for alias in target.detach:
        yield ask(DetachDimm(alias), alias, observed, now)
    if target.attach_bytes:
        yield Change(AttachDimm(target.attach_bytes))


def _plan_device(target: MemoryTarget, seen: AttachedMemory, observed: Observed, now: datetime) -> Iterator[Change]:
    device, wanted = seen.device, target.requested_bytes
    if device is None:
        return
    if device.requested_bytes != wanted:
        yield Change(RequestMemory(wanted))
    elif device.current_bytes != wanted:
        change = ask(RequestMemory(wanted), memory_key(wanted), observed, now)
        asking = observed.asked.get(memory_key(wanted))
        waits = asking is not None and takes_nothing(seen) and now < asking.first + TAKES_AFTER
        if waits and asking is not None and change.due is not None:
            change = Change(change.action, min(change.due, asking.first + TAKES_AFTER))
        yield change


def _refuses(seen: AttachedMemory, observed: Observed, now: datetime) -> bool:
    """Tell whether the guest has had time enough to take memory, and has taken none."""
    if not takes_nothing(seen) or seen.device is None:
        return False
    asking = observed.asked.get(memory_key(seen.device.requested_bytes))
    return asking is not None and now >= asking.first + TAKES_AFTER
