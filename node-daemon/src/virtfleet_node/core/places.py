"""Where a machine's devices sit: PCI Express ports and device names, given once and kept for the machine's life.

A guest names its network cards by their port (enp2s0) and finds its disks in the order of ports. Neither may change
because another device came or went, so what is given is stored with the document.
"""

from collections.abc import Iterable
from itertools import count
from typing import Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Hardware
from virtfleet_api.virtual_machine import DiskBus

CLOUD_INIT: Final = ":cloud-init"
"""Stands for the cloud-init medium among the disks; no disk can have this name."""

MEMORY: Final = "memory"
"""How the virtio-mem device is called among the ports."""

DISPLAY: Final = "display"
"""How the graphics card of a display is called among the ports."""

TABLET: Final = "tablet"
"""How the pointer of a display is called among the ports."""

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


class Places(Document):
    """The places of a machine's devices."""

    ports: dict[str, int] = Field(default_factory=dict)
    """PCI Express port by device; port n is the guest's bus n."""
    targets: dict[str, str] = Field(default_factory=dict)
    """Device name, such as vda, by disk."""


def disk_key(name: str) -> str:
    """Return how a virtio disk is called among the ports."""
    return f"disk/{name}"


def card_key(name: str) -> str:
    """Return how a network card is called among the ports."""
    return f"card/{name}"


def device_key(name: str) -> str:
    """Return how a device of the host is called among the ports."""
    return f"device/{name}"


def needs_scsi(hardware: Hardware) -> bool:
    """Tell whether a disk or the cloud-init medium hangs on SCSI."""
    return hardware.cloud_init_digest is not None or any(disk.bus is DiskBus.SCSI for disk in hardware.disks)


def needs_memory_device(hardware: Hardware) -> bool:
    """Tell whether the running guest may be given more memory, for which it has a device from the beginning."""
    return hardware.memory_ceiling_bytes > hardware.memory_bytes


def assign(kept: Places, hardware: Hardware) -> Places:
    """Give a place to each device that has none; those that are not there any more keep theirs."""
    return Places(ports=_ports(kept.ports, hardware), targets=_targets(kept.targets, hardware))


def reassign(kept: Places, hardware: Hardware) -> Places:
    """Give the places of devices that are gone to others; only between two starts, when no guest holds them."""
    devices, disks = set(_on_ports(hardware)), {name for name, _ in _named(hardware)}
    ports = {device: port for device, port in kept.ports.items() if device in devices}
    targets = {name: target for name, target in kept.targets.items() if name in disks}
    return assign(Places(ports=ports, targets=targets), hardware)


def _on_ports(hardware: Hardware) -> Iterable[str]:
    """Yield the devices on ports, in the order in which libvirt numbers them when nobody else does."""
    if needs_scsi(hardware):
        yield "scsi"
    yield "serial"
    yield from (card_key(interface.name) for interface in hardware.interfaces)
    yield from (disk_key(disk.name) for disk in hardware.disks if disk.bus is DiskBus.VIRTIO)
    yield from ("balloon", "rng")
    yield from (device_key(device.name) for device in hardware.devices)
    if needs_memory_device(hardware):
        yield MEMORY
    if hardware.display is not None:
        yield from (DISPLAY, TABLET)


def _named(hardware: Hardware) -> Iterable[tuple[str, str]]:
    """Yield the disks with the first letters of their device names."""
    for disk in hardware.disks:
        yield disk.name, "vd" if disk.bus is DiskBus.VIRTIO else "sd"
    if hardware.cloud_init_digest is not None:
        yield CLOUD_INIT, "sd"


def _ports(kept: dict[str, int], hardware: Hardware) -> dict[str, int]:
    given = dict(kept)
    for device in _on_ports(hardware):
        if device not in given:
            taken = set(given.values())
            given[device] = next(port for port in count(1) if port not in taken)
    return given


def _targets(kept: dict[str, str], hardware: Hardware) -> dict[str, str]:
    given = dict(kept)
    for name, prefix in _named(hardware):
        if not given.get(name, "").startswith(prefix):
            taken = set(given.values())
            given[name] = next(t for number in count() if (t := prefix + _suffix(number)) not in taken)
    return given


def _suffix(number: int) -> str:
    """Return the letters Linux would give: a to z, then aa, ab and so on."""
    high, low = divmod(number, len(_LETTERS))
    return (_LETTERS[high - 1] if high else "") + _LETTERS[low]
