"""What differs between the hardware a guest was started with and what is desired, in the words of the spec."""

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from virtfleet_api.machine import Hardware

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

_DISK: Final = {
    "pool": "pool",
    "bus": "bus",
    "cache": "cache",
    "boot_order": "bootOrder",
}

_NETWORK: Final = {"mac": "macAddress", "model": "model"}

_KERNEL: Final = {"image_uid": "kernelBoot.image", "cmdline": "kernelBoot.cmdline"}


def changed_fields(started: Hardware, desired: Hardware) -> tuple[str, ...]:
    """Return the spec fields that take effect at the next start, such as "cpu.cores" or "disks[root].cache"."""
    disks = {d.name: d for d in started.disks}, {d.name: d for d in desired.disks}
    networks = {i.name: i for i in started.interfaces}, {i.name: i for i in desired.interfaces}
    return (
        *_differences(started, desired, _PLAIN),
        *_kernel(started, desired),
        *_named("disks", *disks, _DISK),
        *_named("networks", *networks, _NETWORK),
    )


def _differences(before: BaseModel, after: BaseModel, names: Mapping[str, str]) -> Iterator[str]:
    return (word for name, word in names.items() if getattr(before, name) != getattr(after, name))


def _kernel(started: Hardware, desired: Hardware) -> Iterator[str]:
    if started.kernel is not None and desired.kernel is not None:
        yield from _differences(started.kernel, desired.kernel, _KERNEL)
    elif started.kernel != desired.kernel:
        yield "kernelBoot"


def _named(
    kind: str, before: Mapping[str, BaseModel], after: Mapping[str, BaseModel], names: Mapping[str, str]
) -> Iterator[str]:
    """Yield what changed in a list of named parts; one that was added or removed is named as a whole."""
    for name in {**before, **after}:
        if name in before and name in after:
            yield from (f"{kind}[{name}].{word}" for word in _differences(before[name], after[name], names))
        else:
            yield f"{kind}[{name}]"
