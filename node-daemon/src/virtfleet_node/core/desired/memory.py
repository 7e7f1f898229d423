"""Guest memory, and the device by which a running guest is given more."""

from typing import Final

from virtfleet_api.machine import Hardware
from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import Guest
from virtfleet_node.core.places import MEMORY

BLOCK_BYTES: Final = 2 << 20
"""Step of virtio-mem: the size of a huge page of x86, below which its Linux driver does not go."""

SECTION_BYTES: Final = 128 << 20
"""Linux on x86 brings memory online in blocks of this size: it refuses a DIMM of another, and does not use what a
virtio-mem device has beyond the last whole one."""

_LARGE_SECTION_BYTES: Final = 2 << 30
_LARGE_BYTES: Final = 64 << 30
"""From this size on, Linux takes larger blocks (probe_memory_block_size in arch/x86/mm/init_64.c)."""

SLOTS: Final = 16
"""DIMMs that a guest may have; QEMU's limit is 256, each has a line in the guest's ACPI tables."""

_ADDRESSES: Final = 512 << 30
"""Of the terabyte that QEMU's CPU models address (40 bits), what DIMMs are kept free for at the most."""


def configure_memory(domain: Element, guest: Guest) -> None:
    """Write <maxMemory>, <memory> and <currentMemory> in bytes; libvirt rounds up to its own unit."""
    hardware = guest.hardware
    if guest.has_memory_device:
        room = hardware.memory_bytes + device_bytes(hardware) + dimm_room(hardware)
        add(domain, "maxMemory", str(room), slots=SLOTS, unit="b")
    for tag in ("memory", "currentMemory"):
        add(domain, tag, str(hardware.memory_bytes), unit="b")


def configure_memory_device(domain: Element, guest: Guest) -> None:
    """Write the virtio-mem device, with nothing plugged: https://libvirt.org/formatdomain.html#memory-devices."""
    if not guest.has_memory_device:
        return
    device = add(devices(domain), "memory", model="virtio-mem")
    target = add(device, "target")
    add(target, "size", str(device_bytes(guest.hardware)), unit="b")
    add(target, "node", "0")
    add(target, "block", str(block_bytes(guest.hardware)), unit="b")
    add(target, "requested", "0", unit="b")
    add_port(device, guest, MEMORY)


def block_bytes(hardware: Hardware) -> int:
    """Return the step of virtio-mem, at least a page of the host's that backs it."""
    return max(BLOCK_BYTES, hardware.hugepage_bytes or 0)


def device_bytes(hardware: Hardware) -> int:
    """Return the most that the virtio-mem device gives: of all that the guest may have, in whole blocks of its own."""
    section = SECTION_BYTES if hardware.memory_bytes < _LARGE_BYTES else _LARGE_SECTION_BYTES
    return _rounded_up(hardware.memory_ceiling_bytes - hardware.memory_bytes, max(section, block_bytes(hardware)))


def dimm_room(hardware: Hardware) -> int:
    """Return the room for DIMMs, which a guest without a driver for virtio-mem is given instead."""
    return max(0, min(device_bytes(hardware), _ADDRESSES - hardware.memory_bytes - device_bytes(hardware)))


def build_dimm_xml(size_bytes: int) -> str:
    """Return the <memory> of a DIMM, to attach it to a running guest."""
    return f"<memory model='dimm'><target><size unit='b'>{size_bytes}</size><node>0</node></target></memory>"


def _rounded_up(size_bytes: int, step: int) -> int:
    return -(-size_bytes // step) * step
