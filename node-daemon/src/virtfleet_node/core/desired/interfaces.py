"""Network cards: on the node's integration bridge, where OVN takes over, or behind QEMU's own outbound NAT."""

from typing import Final

from lxml import etree

from virtfleet_api.machine import InterfaceLimit, MachineInterface
from virtfleet_api.network import NicModel
from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, Guest
from virtfleet_node.core.limits import NO_LIMIT, CardLimit
from virtfleet_node.core.places import card_key

INTEGRATION_BRIDGE: Final = "br-int"
"""ovn-controller makes it, and connects what has an iface-id on it."""

ALIAS_PREFIX: Final = "ua-card-"
"""libvirt keeps a device's name of ours when it begins with `ua-`."""

MAX_QUEUES: Final = 8
"""Each queue has a thread of the kernel's and interrupts of the guest's; a card's rate grows little beyond these."""

_BITS: Final = 8
_KILOBYTE: Final = 1000
"""libvirt's unit of a rate: it gives Open vSwitch 8000 bits for each."""
_KIBIBYTE: Final = 1024


def configure_interfaces(domain: Element, guest: Guest) -> None:
    """Write an <interface> for each card, in the order of the list."""
    for interface in guest.hardware.interfaces:
        devices(domain).append(_build(guest, interface))


def build_interface_xml(guest: Guest, interface: MachineInterface) -> str:
    """Return the <interface> of one card, to attach it to a running guest."""
    return etree.tostring(_build(guest, interface), encoding="unicode")


def build_limit(limit: InterfaceLimit | None) -> CardLimit:
    """Return a limit as libvirt takes it.

    Open vSwitch reads average as what a card gets at least, and peak as the most that it gets: both are the limit.
    """
    if limit is None:
        return NO_LIMIT
    rate = max(1, round(limit.bits_per_second / _BITS / _KILOBYTE))
    return CardLimit(rate, rate, max(1, round(limit.burst_bytes / _KIBIBYTE)))


def _build(guest: Guest, interface: MachineInterface) -> Element:
    card = etree.Element("interface", {"type": "user" if interface.port is None else "bridge"})
    add(card, "mac", address=interface.mac)
    if interface.port is not None:
        _plug_in(card, guest, interface, interface.port)
    add(card, "model", type_=interface.model)
    add(card, "link", state=interface.state)
    if guest.facts.domain_type is not DomainType.TEST:
        add(card, "alias", name=f"{ALIAS_PREFIX}{interface.name}")
    add_port(card, guest, card_key(interface.name))
    return card


def _plug_in(card: Element, guest: Guest, interface: MachineInterface, port: str) -> None:
    add(card, "source", bridge=INTEGRATION_BRIDGE)
    add(add(card, "virtualport", type_="openvswitch"), "parameters", interfaceid=port)
    if interface.inbound is not None:
        limit = build_limit(interface.inbound)
        add(add(card, "bandwidth"), "inbound", average=limit.average, peak=limit.peak, burst=limit.burst)
    if interface.mtu is not None:
        add(card, "mtu", size=interface.mtu)
    if interface.model is NicModel.VIRTIO:
        _tune(card, guest)


def _tune(card: Element, guest: Guest) -> None:
    """Give each vCPU a queue, and turn off what the switch cannot carry.

    Open vSwitch's datapath in user space takes packets from the tap device as they are: what a guest leaves to the
    card, checksums and the cutting of large packets, is done by nobody there. libvirt can turn it off for virtio alone.
    """
    queues = min(guest.hardware.vcpu_ceiling, MAX_QUEUES)
    if queues == 1 and not guest.user_space_switch:
        return
    driver = add(card, "driver")
    if queues > 1:
        driver.set("queues", str(queues))
    if guest.user_space_switch:
        add(driver, "host", csum="off", gso="off", tso4="off", tso6="off", ecn="off", ufo="off")
        add(driver, "guest", csum="off", tso4="off", tso6="off", ecn="off", ufo="off")
