"""What differs between the hardware a guest was started with and what is desired, in the words of the spec."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from pydantic import BaseModel

from virtfleet_api.machine import Hardware
from virtfleet_node.core.attached import attachable, attached, detachable, is_inserted, unwanted
from virtfleet_node.core.observed import HOLDS_AFTER, Observed

_PLAIN: Final = {
    "machine_type": "machineType",
    "sockets": "cpu.sockets",
    "cores": "cpu.cores",
    "threads": "cpu.threads",
    "cpu_model": "cpu.model",
    "memory_bytes": "memory.guest",
    "cloud_init_digest": "cloudInit",
    "guest_agent": "guestAgent",
}

_NETWORK: Final = {"mac": "macAddress", "model": "model"}

_KERNEL: Final = {"image_uid": "kernelBoot.image", "cmdline": "kernelBoot.cmdline"}


def changed_fields(started: Hardware, desired: Hardware, observed: Observed) -> tuple[str, ...]:
    """Return the spec fields that take effect at the next start, such as "cpu.cores" or "disks[root].cache"."""
    networks = {i.name: i for i in started.interfaces}, {i.name: i for i in desired.interfaces}
    return (
        *_differences(started, desired, _PLAIN),
        *_kernel(started, desired),
        *_disks(started, desired, observed),
        *_named("networks", *networks, _NETWORK),
    )


def _differences(before: BaseModel, after: BaseModel, names: Mapping[str, str]) -> Iterator[str]:
    return (word for name, word in names.items() if getattr(before, name) != getattr(after, name))


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
        if orders.get(disk.name, disk.boot_order) != disk.boot_order:
            yield f"disks[{disk.name}].bootOrder"
    yield from (f"disks[{name}]" for name in _removed(desired, observed))


def _removed(desired: Hardware, observed: Observed) -> Iterator[str]:
    """Yield the names of disks and drives that the guest has, and keeps until it is off."""
    names = {str(disk.path): disk.name for disk in observed.disks}
    yield from (names[seen.file] for seen in unwanted(desired, observed) if not detachable(seen))
    drives = {drive.name for drive in desired.drives}
    yield from (seen.drive for seen in observed.domain.disks if seen.drive and seen.drive not in drives)


def held_disks(desired: Hardware, observed: Observed, now: datetime) -> tuple[str, ...]:
    """Return the disks and drives that the guest has been asked to let go of, and still holds."""
    holds = {target for target, asking in observed.asked.items() if now >= asking.first + HOLDS_AFTER}
    names = {str(disk.path): disk.name for disk in observed.disks}
    disks = (names[seen.file] for seen in unwanted(desired, observed) if seen.target in holds)
    found = ((drive, attached(drive, observed)) for drive in desired.drives)
    media = (d.name for d, seen in found if seen and seen.target in holds and not is_inserted(d, seen))
    return (*disks, *media)


def _named(
    kind: str, before: Mapping[str, BaseModel], after: Mapping[str, BaseModel], names: Mapping[str, str]
) -> Iterator[str]:
    """Yield what changed in a list of named parts; one that was added or removed is named as a whole."""
    for name in {**before, **after}:
        if name in before and name in after:
            yield from (f"{kind}[{name}].{word}" for word in _differences(before[name], after[name], names))
        else:
            yield f"{kind}[{name}]"
