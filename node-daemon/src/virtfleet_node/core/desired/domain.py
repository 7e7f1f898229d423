"""A machine as libvirt domain XML: the configurators in their order."""

from collections.abc import Callable
from typing import Final

from lxml import etree

from virtfleet_node.core.desired import (
    boot,
    controllers,
    cpu,
    cpu_tune,
    disks,
    display,
    features,
    identity,
    interfaces,
    memory,
    numa,
    paravirtual,
    serial,
)
from virtfleet_node.core.desired import devices as host_devices
from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import DomainType, Guest
from virtfleet_node.core.desired.metadata import add_metadata
from virtfleet_node.core.record import Stored

CONFIGURATORS: Final[tuple[Callable[[Element, Guest], None], ...]] = (
    identity.configure_identity,
    memory.configure_memory,
    numa.configure_hugepages,
    cpu.configure_cpu,
    numa.configure_guest_cells,
    numa.configure_pins,
    cpu_tune.configure_cpu_tune,
    boot.configure_boot,
    features.configure_features,
    features.configure_clock,
    features.configure_lifecycle,
    controllers.configure_emulator,
    controllers.configure_controllers,
    disks.configure_disks,
    disks.configure_cloud_init,
    interfaces.configure_interfaces,
    host_devices.configure_devices,
    host_devices.configure_drawing,
    display.configure_display,
    serial.configure_serial,
    serial.configure_agent_channel,
    memory.configure_memory_device,
    paravirtual.configure_balloon,
    paravirtual.configure_rng,
    paravirtual.configure_panic,
)


def build_domain_xml(guest: Guest, stored: Stored) -> str:
    """Return the XML that the guest is started with."""
    domain = etree.Element("domain", {"type": str(guest.facts.domain_type)})
    for configure in CONFIGURATORS:
        configure(domain, guest)
    add_metadata(domain, stored)
    return etree.tostring(domain, encoding="unicode", pretty_print=True)


def build_placeholder_xml(stored: Stored, domain_type: DomainType) -> str:
    """Return XML that keeps a machine's document before its disks exist; it is never started."""
    domain = etree.Element("domain", {"type": str(domain_type)})
    identity.add_identity(domain, stored.desired)
    add(domain, "memory", "1", unit="MiB")
    add(add(domain, "os"), "type", "hvm", arch="x86_64")
    add_metadata(domain, stored)
    return etree.tostring(domain, encoding="unicode")
