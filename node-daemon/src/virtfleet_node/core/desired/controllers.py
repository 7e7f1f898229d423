"""QEMU and its buses. PCI Express ports are written out, since a port cannot be added to a running guest."""

from typing import Final

from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.cpu import queue_count
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, Guest
from virtfleet_node.core.places import needs_scsi

SPARE_PCIE_PORTS: Final = 8
"""Devices that may be added while the guest runs; each port costs the guest's boot a few milliseconds."""


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
        for port in range(1, max(guest.places.ports.values()) + SPARE_PCIE_PORTS + 1):
            add(parent, "controller", type_="pci", index=port, model="pcie-root-port")
    add(parent, "controller", type_="usb", model="none")
    if needs_scsi(guest.hardware):
        scsi = add(parent, "controller", type_="scsi", index=0, model="virtio-scsi")
        add(scsi, "driver", queues=queue_count(guest.hardware))
        add_port(scsi, guest, "scsi")
    add_port(add(parent, "controller", type_="virtio-serial", index=0), guest, "serial")
