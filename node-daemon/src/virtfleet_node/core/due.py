"""When what a guest must agree to is asked for again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from virtfleet_node.core.actions import Action
from virtfleet_node.core.observed import HOLDS_AFTER, Asking, Observed, ObservedDomain
from virtfleet_node.core.restore_actions import CLOCK, MACHINE_ID

ASK_AGAIN: Final = timedelta(seconds=20)
"""A guest that has not let go of a device is asked again: it may have been booting, or the disk was mounted."""


@dataclass(frozen=True)
class Change:
    """An action, or a moment before which it is not due."""

    action: Action
    due: datetime | None = None


def vcpus_key(count: int) -> str:
    """Return what `Observed.asked` calls a number of vCPUs that the guest agent was asked to have online."""
    return f"vcpus/{count}"


def plug_key(count: int) -> str:
    """Return what `Observed.asked` calls a number of vCPUs that QEMU was asked to have."""
    return f"plug/{count}"


def unplug_key(count: int) -> str:
    """Return what `Observed.asked` calls a number of vCPUs that the guest was asked to keep, and let go of the rest."""
    return f"unplug/{count}"


def memory_key(size_bytes: int) -> str:
    """Return what `Observed.asked` calls memory that the guest was asked to have of its virtio-mem device."""
    return f"memory/{size_bytes}"


def balloon_key(level_bytes: int) -> str:
    """Return what `Observed.asked` calls the memory that the guest's balloon was asked to leave."""
    return f"balloon/{level_bytes}"


def outstanding(asked: Mapping[str, Asking], domain: ObservedDomain, guest_vcpus: int | None) -> dict[str, Asking]:
    """Return what the guest has been asked for and has not done; what it does not have any more is forgotten."""
    there = {disk.target for disk in domain.disks} | ({CLOCK, MACHINE_ID} if domain.active else set())
    there |= {card.alias for card in domain.cards} | {device.alias for device in domain.devices}
    if (memory := domain.memory) is not None:
        there |= {dimm.alias for dimm in memory.dimms}
        level = memory.boot_bytes + memory.dimm_bytes - memory.balloon_bytes
        there |= {key for key in asked if key.startswith("balloon/") and key != balloon_key(level)}
        if (device := memory.device) is not None and device.current_bytes != device.requested_bytes:
            there.add(memory_key(device.requested_bytes))
    if (vcpus := domain.vcpus) is not None:
        there |= {key for key in asked if key.startswith("vcpus/") and key != vcpus_key(guest_vcpus or 0)}
        done = {plug_key(vcpus.plugged), unplug_key(vcpus.plugged)}
        there |= {key for key in asked if key.startswith(("plug/", "unplug/")) and key not in done}
    return {key: asking for key, asking in asked.items() if key in there}


def asked_again(asked: Mapping[str, Asking], key: str, now: datetime) -> dict[str, Asking]:
    """Return what the guest has been asked for, with one more request; of a figure only the last one counts."""
    kind, slash, _ = key.rpartition("/")
    stale = {name for name in asked if slash and name != key and name.startswith(f"{kind}/")}
    kept = {name: asking for name, asking in asked.items() if name not in stale}
    before = kept.get(key)
    return {**kept, key: before.again(now) if before else Asking(now, now)}


def ask(action: Action, key: str, observed: Observed, now: datetime) -> Change:
    """Return a request to the guest for what `Observed.asked` knows as `key`."""
    return Change(action, _due(observed, key, now))


def _due(observed: Observed, key: str, now: datetime) -> datetime | None:
    """Return when to ask the guest again, or to tell that it holds on; None for now."""
    asking = observed.asked.get(key)
    if asking is None or now >= asking.last + ASK_AGAIN:
        return None
    told = asking.first + HOLDS_AFTER
    return told if now < told else asking.last + ASK_AGAIN
