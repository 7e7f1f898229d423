"""QEMU and its buses. PCI Express ports are written out, since a port cannot be added to a running guest."""

from typing import Final

from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, Guest

SPARE_PCIE_PORTS: Final = 8
"""Devices that may be added while the guest runs; each port costs the guest's boot a few milliseconds."""

_FIXED_DEVICES: Final = 3
"""Serial bus, memory balloon and random number generator sit on a port each."""


def configure_emulator(domain: Element, guest: Guest) -> None:
    """Write the path of QEMU."""
    if guest.facts.emulator is not None:
        add(devices(domain), "emulator", guest.facts.emulator)


def configure_controllers(domain: Element, guest: Guest) -> None:
    """Write the controllers."""
    if guest.facts.domain_type is DomainType.TEST:
        return
    parent = devices(domain)
    if guest.is_q35:
        add(parent, "controller", type_="pci", index=0, model="pcie-root")
        for _ in range(count_pci_devices(guest) + SPARE_PCIE_PORTS):
            add(parent, "controller", type_="pci", model="pcie-root-port")
    add(parent, "controller", type_="usb", model="none")
    if needs_scsi(guest):
        add(parent, "controller", type_="scsi", index=0, model="virtio-scsi")
    add(parent, "controller", type_="virtio-serial", index=0)


def needs_scsi(guest: Guest) -> bool:
    """Tell whether a disk or the cloud-init medium hangs on SCSI."""
    return guest.paths.cloud_init is not None or any(disk.bus is DiskBus.SCSI for disk in guest.hardware.disks)


def count_pci_devices(guest: Guest) -> int:
    """Return how many PCI Express ports the guest's own devices take."""
    virtio_disks = sum(disk.bus is DiskBus.VIRTIO for disk in guest.hardware.disks)
    return virtio_disks + len(guest.hardware.interfaces) + needs_scsi(guest) + _FIXED_DEVICES
