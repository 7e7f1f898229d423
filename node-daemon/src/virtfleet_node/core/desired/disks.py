"""Disks and the cloud-init medium. The chain of files is declared to its end, so libvirt and QEMU probe nothing."""

from typing import Final

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import Hardware, MachineDisk
from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.desired.boot import build_boot_order
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import FileLayer, Guest
from virtfleet_node.core.desired.io_tune import add_io_tune

SERIAL_LENGTH: Final = 20
"""virtio-blk's VIRTIO_BLK_ID_BYTES; QEMU cuts what is longer, and refuses it on SATA."""

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def configure_disks(domain: Element, guest: Guest) -> None:
    """Write a <disk> for each disk, in the order of the list."""
    targets, order = build_targets(guest.hardware), build_boot_order(guest.hardware)
    for disk in guest.hardware.disks:
        element = _add_disk(devices(domain), guest, disk, targets[disk.name])
        if disk.name in order:
            add(element, "boot", order=order[disk.name])


def configure_cloud_init(domain: Element, guest: Guest) -> None:
    """Write the cloud-init medium as a read-only CD-ROM on SCSI, which every cloud image has a driver for."""
    if guest.paths.cloud_init is None:
        return
    medium = add(devices(domain), "disk", type_="file", device="cdrom")
    add(medium, "driver", name="qemu", type_="raw")
    add(medium, "source", file=str(guest.paths.cloud_init))
    add(medium, "backingStore")
    add(medium, "target", dev=f"sd{_suffix(_count_sd(guest.hardware))}", bus="scsi")
    add(medium, "readonly")


def build_targets(hardware: Hardware) -> dict[str, str]:
    """Return the device name of each disk: vda, vdb, … on virtio, sda, sdb, … on SCSI and SATA."""
    counts = {"vd": 0, "sd": 0}
    targets = {}
    for disk in hardware.disks:
        prefix = "vd" if disk.bus is DiskBus.VIRTIO else "sd"
        targets[disk.name] = prefix + _suffix(counts[prefix])
        counts[prefix] += 1
    return targets


def _count_sd(hardware: Hardware) -> int:
    return sum(disk.bus is not DiskBus.VIRTIO for disk in hardware.disks)


def _suffix(number: int) -> str:
    """Return the letters Linux would give: a to z, then aa, ab and so on."""
    high, low = divmod(number, len(_LETTERS))
    return (_LETTERS[high - 1] if high else "") + _LETTERS[low]


def _add_disk(parent: Element, guest: Guest, disk: MachineDisk, target: str) -> Element:
    resolved = guest.paths.disks[disk.name]
    element = add(parent, "disk", type_="file", device="disk")
    add(element, "driver", name="qemu", type_=resolved.file.format, cache=disk.cache, discard="unmap")
    add(element, "source", file=str(resolved.file.path))
    _add_backing(element, resolved.backing)
    add(element, "target", dev=target, bus=disk.bus)
    add(element, "serial", disk.name[:SERIAL_LENGTH])
    add_io_tune(element, disk)
    return element


def _add_backing(element: Element, layers: tuple[FileLayer, ...]) -> None:
    """Write the chain of backing files; the empty element at its end says that there is no more."""
    for layer in layers:
        element = add(element, "backingStore", type_="file")
        add(element, "format", type_=_libvirt_format(layer.format))
        add(element, "source", file=str(layer.path))
    add(element, "backingStore")


def _libvirt_format(image_format: ImageFormat) -> str:
    return "raw" if image_format is ImageFormat.KERNEL else str(image_format)
