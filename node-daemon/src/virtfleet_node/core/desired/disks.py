"""Disks and the cloud-init medium. The chain of files is declared to its end, so libvirt and QEMU probe nothing."""

from typing import Final

from lxml import etree

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import MachineDisk, VolumeSource
from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.boot import build_boot_order
from virtfleet_node.core.desired.cpu import queue_count
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, FileLayer, Guest
from virtfleet_node.core.desired.io_tune import add_io_tune
from virtfleet_node.core.places import CLOUD_INIT, disk_key
from virtfleet_node.core.volumes import claim_key

SERIAL_LENGTH: Final = 20
"""virtio-blk's VIRTIO_BLK_ID_BYTES; QEMU cuts what is longer, and refuses it on SATA."""

ALIAS_PREFIX: Final = "ua-disk-"
"""libvirt keeps a device's name of ours when it begins with `ua-`."""


VOLUME_PREFIX: Final = "ua-volume-"


def configure_disks(domain: Element, guest: Guest) -> None:
    """Write a <disk> for each disk, in the order of the list."""
    order = build_boot_order(guest.hardware)
    for disk in guest.hardware.disks:
        element = add(devices(domain), "disk", type_=_type(guest, disk), device="cdrom" if disk.is_drive else "disk")
        _fill(element, guest, disk)
        if disk.name in order:
            add(element, "boot", order=order[disk.name])


def build_disk_xml(guest: Guest, disk: MachineDisk) -> str:
    """Return the <disk> of one disk, to attach it to a running guest or to change a drive's medium.

    It has no boot order: that of the running guest is known to its firmware already.
    """
    element = etree.Element("disk", {"type": _type(guest, disk), "device": "cdrom" if disk.is_drive else "disk"})
    _fill(element, guest, disk)
    return etree.tostring(element, encoding="unicode")


def configure_cloud_init(domain: Element, guest: Guest) -> None:
    """Write the cloud-init medium as a read-only CD-ROM on SCSI, which every cloud image has a driver for."""
    if guest.paths.cloud_init is None:
        return
    medium = add(devices(domain), "disk", type_="file", device="cdrom")
    add(medium, "driver", name="qemu", type_="raw")
    add(medium, "source", file=str(guest.paths.cloud_init))
    add(medium, "backingStore")
    add(medium, "target", dev=guest.places.targets[CLOUD_INIT], bus="scsi")
    add(medium, "readonly")


def _fill(element: Element, guest: Guest, disk: MachineDisk) -> None:
    if disk.is_drive:
        _fill_drive(element, guest, disk)
    else:
        _fill_disk(element, guest, disk)
    if guest.facts.domain_type is not DomainType.TEST:
        add(element, "alias", name=_alias(disk))


def parse_volume_alias(alias: str) -> tuple[str, str]:
    """Return name and claim of the volume that a device is by its alias; twice nothing for any other."""
    if not alias.startswith(VOLUME_PREFIX):
        return "", ""
    claim, _, name = alias.removeprefix(VOLUME_PREFIX).partition("-")
    return name, claim


def _alias(disk: MachineDisk) -> str:
    """Name a volume by its claim as well: its path tells nothing of it, and another claim is another disk."""
    if isinstance(disk.source, VolumeSource):
        return f"{VOLUME_PREFIX}{claim_key(disk.source)}-{disk.name}"
    return f"{ALIAS_PREFIX}{disk.name}"


def _type(guest: Guest, disk: MachineDisk) -> str:
    return "block" if not disk.is_drive and guest.paths.disks[disk.name].is_device else "file"


def _fill_disk(element: Element, guest: Guest, disk: MachineDisk) -> None:
    resolved = guest.paths.disks[disk.name]
    driver = add(element, "driver", name="qemu", type_=resolved.file.format, cache=disk.cache, discard="unmap")
    if disk.bus is DiskBus.VIRTIO:
        driver.set("queues", str(queue_count(guest.hardware)))  # each vCPU sends its requests by a queue of its own
    source = add(element, "source", **{"dev" if resolved.is_device else "file": str(resolved.file.path)})
    if disk.is_volume and not resolved.is_device and guest.facts.qemu_user is not None:
        # libvirt would give QEMU, as root, whatever somebody has put in the file's place by then.
        add(source, "seclabel", model="dac", relabel="no")
    add_backing(element, resolved.backing)
    add(element, "target", dev=guest.places.targets[disk.name], bus=disk.bus)
    add(element, "serial", disk.name[:SERIAL_LENGTH])
    add_io_tune(element, disk)
    if disk.bus is DiskBus.VIRTIO:
        add_port(element, guest, disk_key(disk.name))


def _fill_drive(element: Element, guest: Guest, disk: MachineDisk) -> None:
    add(element, "driver", name="qemu", type_="raw")
    medium = guest.paths.media.get(disk.name)
    if medium is not None:
        add(element, "source", file=str(medium))
        add(element, "backingStore")
    add(element, "target", dev=guest.places.targets[disk.name], bus="sata")
    add(element, "readonly")


def add_backing(element: Element, layers: tuple[FileLayer, ...]) -> None:
    """Write the chain of backing files; the empty element at its end says that there is no more."""
    for layer in layers:
        element = add(element, "backingStore", type_="file")
        add(element, "format", type_=_libvirt_format(layer.format))
        add(element, "source", file=str(layer.path))
    add(element, "backingStore")


def _libvirt_format(image_format: ImageFormat) -> str:
    return "raw" if image_format is ImageFormat.KERNEL else str(image_format)
