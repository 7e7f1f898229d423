"""What differs between the hardware a guest was started with and what is desired, in the words of the spec."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from pydantic import BaseModel

from virtfleet_api.machine import Hardware, MachineInterface
from virtfleet_node.core.attached import (
    attachable,
    attached,
    detachable,
    is_inserted,
    limits_differ,
    limits_field,
    unwanted,
)
from virtfleet_node.core.cards import attachable_card, attached_card, card_name, unwanted_cards, waiting_for_switch
from virtfleet_node.core.changed_compute import AT_RESTART, compute_fields
from virtfleet_node.core.desired.cpu_tune import is_deferred
from virtfleet_node.core.guest_devices import changed_devices
from virtfleet_node.core.observed import HOLDS_AFTER, AttachedCard, Observed
from virtfleet_node.core.plan_pins import is_memory_elsewhere

_PLAIN: Final = {
    "machine_type": "machineType",
    "cpu_model": "cpu.model",
    "dedicated_cpus": "cpu.dedicated",
    "hugepage_bytes": "memory.hugepages",
    "cloud_init_digest": "cloudInit",
    "guest_agent": "guestAgent",
    "display": "display",
}

_SCHEDULING: Final = {"limit_hz": "cpu.limit", "reservation_hz": "cpu.reservation", "shares": "cpu.shares"}

_KERNEL: Final = {"image_uid": "kernelBoot.image", "cmdline": "kernelBoot.cmdline"}


def changed_fields(started: Hardware, desired: Hardware, observed: Observed) -> tuple[str, ...]:
    """Return the spec fields that take effect at the next start, such as "cpu.cores" or "disks[root].cache"."""
    return (
        *_differences(started, desired, _PLAIN),
        *_scheduling(started, desired),
        *(("cpu.affinity",) if _is_pinned_later(started, desired, observed) else ()),
        *compute_fields(started, desired, observed),
        *_kernel(started, desired),
        *_disks(started, desired, observed),
        *_cards(desired, observed),
        *changed_devices(started, desired, observed),
    )


def _differences(before: BaseModel, after: BaseModel, names: Mapping[str, str]) -> Iterator[str]:
    return (word for name, word in names.items() if getattr(before, name) != getattr(after, name))


def _is_pinned_later(started: Hardware, desired: Hardware, observed: Observed) -> bool:
    """Tell whether CPUs that the user names have memory that cannot follow to them now, or are dedicated ones."""
    if started.affinity == desired.affinity:
        return False
    return "affinity" in desired.deferred or started.dedicated_cpus or is_memory_elsewhere(observed)


def _scheduling(started: Hardware, desired: Hardware) -> Iterator[str]:
    waits = {name: word for name, word in _SCHEDULING.items() if is_deferred(name, desired)}
    yield from _differences(started.scheduling, desired.scheduling, waits)


def _kernel(started: Hardware, desired: Hardware) -> Iterator[str]:
    if started.kernel is not None and desired.kernel is not None:
        yield from _differences(started.kernel, desired.kernel, _KERNEL)
    elif started.kernel != desired.kernel:
        yield "kernelBoot"


def _disks(started: Hardware, desired: Hardware, observed: Observed) -> Iterator[str]:
    """Yield what of the disks differs from what the guest has and cannot be changed while it runs."""
    orders = {disk.name: disk.boot_order for disk in started.disks}
    for disk in desired.disks:
        seen = attached(disk, observed)
        if seen is None:
            if not attachable(disk, desired, observed):
                yield f"disks[{disk.name}]"
            continue
        if not disk.is_drive and seen.bus != disk.bus:
            yield f"disks[{disk.name}].bus"
        if not disk.is_drive and seen.cache != disk.cache:
            yield f"disks[{disk.name}].cache"
        if not disk.is_drive and limits_differ(disk, seen) and limits_field(disk) in desired.deferred:
            yield f"disks[{disk.name}].ioTune ({AT_RESTART})"
        if orders.get(disk.name, disk.boot_order) != disk.boot_order:
            yield f"disks[{disk.name}].bootOrder"
    yield from (f"disks[{name}]" for name in _removed(desired, observed))


def _removed(desired: Hardware, observed: Observed) -> Iterator[str]:
    """Yield the names of disks and drives that the guest has, and keeps until it is off."""
    names = {str(disk.path): disk.name for disk in observed.disks}
    yield from (seen.volume or names[seen.file] for seen in unwanted(desired, observed) if not detachable(seen))
    drives = {drive.name for drive in desired.drives}
    yield from (seen.drive for seen in observed.domain.disks if seen.drive and seen.drive not in drives)


def held_disks(desired: Hardware, observed: Observed, now: datetime) -> tuple[str, ...]:
    """Return the disks and drives that the guest has been asked to let go of, and still holds."""
    holds = {target for target, asking in observed.asked.items() if now >= asking.first + HOLDS_AFTER}
    names = {str(disk.path): disk.name for disk in observed.disks}
    disks = (seen.volume or names[seen.file] for seen in unwanted(desired, observed) if seen.target in holds)
    found = ((drive, attached(drive, observed)) for drive in desired.drives)
    media = (d.name for d, seen in found if seen and seen.target in holds and not is_inserted(d, seen))
    return (*disks, *media)


def _cards(desired: Hardware, observed: Observed) -> Iterator[str]:
    """Yield what of the network cards differs from what the guest has and cannot be changed while it runs."""
    waiting = waiting_for_switch(desired, observed)
    for interface in desired.interfaces:
        seen = attached_card(interface, observed)
        if seen is not None:
            yield from (f"networks[{interface.name}].{word}" for word in _card(interface, seen))
        elif interface not in waiting and not attachable_card(interface, desired, observed):
            yield f"networks[{interface.name}]"


def _card(interface: MachineInterface, seen: AttachedCard) -> Iterator[str]:
    if seen.mac != interface.mac:
        yield "macAddress"
    if seen.model != interface.model:
        yield "model"
    if seen.port != interface.port:
        yield "switch"
    elif interface.port is not None and seen.mtu != interface.mtu:
        yield "mtu"


def held_interfaces(desired: Hardware, observed: Observed, now: datetime) -> tuple[str, ...]:
    """Return the network cards that the guest has been asked to let go of, and still holds."""
    holds = {alias for alias, asking in observed.asked.items() if now >= asking.first + HOLDS_AFTER}
    return tuple(card_name(seen, observed.domain) for seen in unwanted_cards(desired, observed) if seen.alias in holds)
