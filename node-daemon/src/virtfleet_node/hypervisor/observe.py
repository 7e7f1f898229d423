"""Read a domain into a value. libvirt's numbers end here."""

from collections.abc import Iterator
from typing import Final

import libvirt
from lxml import etree

from virtfleet_api.names import METADATA_NAMESPACE
from virtfleet_api.network import LinkState
from virtfleet_node.core.desired.cpu_tune import parse_quota
from virtfleet_node.core.desired.devices import DEVICE_PREFIX
from virtfleet_node.core.desired.disks import ALIAS_PREFIX, parse_volume_alias
from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.desired.interfaces import ALIAS_PREFIX as CARD_PREFIX
from virtfleet_node.core.desired.io_tune import parse_io_tune
from virtfleet_node.core.desired.metadata import parse_metadata_xml
from virtfleet_node.core.desired.serial import AGENT_CHANNEL
from virtfleet_node.core.limits import NO_LIMIT, CardLimit
from virtfleet_node.core.node_devices import parse_address
from virtfleet_node.core.observed import (
    AttachedCard,
    AttachedDevice,
    AttachedDisk,
    DomainState,
    ObservedDomain,
    OffReason,
)
from virtfleet_node.core.record import Stored
from virtfleet_node.hypervisor.observe_compute import parse_memory, parse_vcpus
from virtfleet_node.hypervisor.pins import parse_pins

ABSENT: Final = ObservedDomain(DomainState.ABSENT)

_OFF_REASONS: Final = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: OffReason.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: OffReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: OffReason.FAILED,  # QEMU is gone; a panic is held, see on_crash
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: OffReason.FAILED,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: OffReason.FAILED,
}

_ACTIVE: Final = {
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
}


def read_domain(connect: libvirt.virConnect, uid: str) -> ObservedDomain:
    """Return the machine's domain as it is. Blocks."""
    try:
        return observe_domain(connect.lookupByUUIDString(uid))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return ABSENT
        raise


def observe_domain(domain: libvirt.virDomain) -> ObservedDomain:
    """Return a domain as it is. Blocks."""
    state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return ObservedDomain(DomainState.OFF, _OFF_REASONS.get(reason, OffReason.UNKNOWN), stored=_stored(domain))
    active = _ACTIVE.get(state, DomainState.RUNNING)
    paused = active is DomainState.PAUSED
    xml = parse(domain.XMLDesc(0))
    return ObservedDomain(
        active,
        disk_error=paused and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR,
        full_disks=_full_disks(domain) if paused and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR else (),
        agent_connected=bool(xml.xpath(f"devices/channel/target[@name='{AGENT_CHANNEL}'][@state='connected']")),
        stored=_stored(domain),
        persistent=bool(domain.isPersistent()),
        machine_type=_machine_type(xml),
        disks=_disks(xml),
        cards=tuple(_card(card) for card in xml.findall("devices/interface")),
        quota=parse_quota(xml),
        devices=tuple(_devices(xml)),
        free_ports=_free_ports(xml),
        has_scsi=xml.find("devices/controller[@type='scsi']") is not None,
        pins=parse_pins(xml),
        vcpus=parse_vcpus(xml),
        memory=parse_memory(xml),
    )


def find_alias(domain: libvirt.virDomain, target: str) -> str:
    """Return libvirt's name of the disk with a target; empty when a running guest has none. Blocks."""
    xml = parse(domain.XMLDesc(0))
    found = xml.find(f"devices/disk/target[@dev='{target}']/../alias")
    return "" if found is None else found.get("name", "")


def find_card(domain: libvirt.virDomain, alias: str) -> etree._Element | None:
    """Return the <interface> with an alias; None when a running guest has none. Blocks."""
    cards = parse(domain.XMLDesc(0)).findall("devices/interface")
    return next((card for card in cards if _attribute(card, "alias", "name") == alias), None)


def _stored(domain: libvirt.virDomain) -> Stored | None:
    """Return what the domain's metadata keeps, None when it holds nothing of ours that can be read."""
    if not domain.isPersistent():
        return None  # somebody has undefined it while it ran
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    try:
        return parse_metadata_xml(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_NAMESPACE, flags))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise
    except (ValueError, etree.XMLSyntaxError):
        return None


def _full_disks(domain: libvirt.virDomain) -> tuple[str, ...]:
    """Return the disks that QEMU could not write for lack of space (virDomainGetDiskErrors)."""
    try:
        found = domain.diskErrors(0)
    except libvirt.libvirtError:
        return ()  # QEMU is busy: an error of an unknown kind, for now
    return tuple(sorted(name for name, error in found.items() if error == libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE))


def _machine_type(xml: etree._Element) -> str:
    found = xml.find("os/type")
    return "" if found is None else found.get("machine", "")


def _disks(xml: etree._Element) -> tuple[AttachedDisk, ...]:
    """Return the disks, and the drives that are ours to change: the cloud-init medium's has no name of ours."""
    found = tuple(_disk(disk) for disk in xml.findall("devices/disk"))
    return tuple(disk for disk in found if disk is not None)


def _disk(disk: etree._Element) -> AttachedDisk | None:
    is_drive, alias = disk.get("device") == "cdrom", _attribute(disk, "alias", "name")
    if is_drive and not alias.startswith(ALIAS_PREFIX):
        return None
    volume, claim = parse_volume_alias(alias)
    return AttachedDisk(
        file=_attribute(disk, "source", "file") or _attribute(disk, "source", "dev"),
        target=_attribute(disk, "target", "dev"),
        bus=_attribute(disk, "target", "bus"),
        cache=_attribute(disk, "driver", "cache"),
        drive=alias.removeprefix(ALIAS_PREFIX) if is_drive else "",
        volume=volume,
        claim=claim,
        tuning=tuple(parse_io_tune(disk).items()),
    )


def _card(card: etree._Element) -> AttachedCard:
    alias, size = _attribute(card, "alias", "name"), _attribute(card, "mtu", "size")
    return AttachedCard(
        alias=alias,
        mac=_attribute(card, "mac", "address"),
        name=alias.removeprefix(CARD_PREFIX) if alias.startswith(CARD_PREFIX) else "",
        model=_attribute(card, "model", "type"),
        port=_attribute(card, "virtualport/parameters", "interfaceid") or None,
        state=LinkState.DOWN if _attribute(card, "link", "state") == LinkState.DOWN else LinkState.UP,
        limit=_limit(card.find("bandwidth/inbound")),
        mtu=int(size) if size.isdigit() else None,
        device=_attribute(card, "target", "dev"),
    )


def _devices(xml: etree._Element) -> Iterator[AttachedDevice]:
    """Yield the devices of the host that are ours to give, without the further functions of their cards."""
    for device in xml.findall("devices/hostdev"):
        alias, source = _attribute(device, "alias", "name"), device.find("source/address")
        if not alias.startswith(DEVICE_PREFIX) or source is None:
            continue
        mediated = device.get("type") == "mdev"
        address = source.get("uuid", "") if mediated else parse_address(source)
        yield AttachedDevice(alias, alias.removeprefix(DEVICE_PREFIX), address, mediated)


def _limit(inbound: etree._Element | None) -> CardLimit:
    if inbound is None:
        return NO_LIMIT
    return CardLimit(*(int(inbound.get(word, "0")) for word in ("average", "peak", "burst")))


def _attribute(parent: etree._Element, tag: str, name: str) -> str:
    found = parent.find(tag)
    return "" if found is None else found.get(name, "")


def _free_ports(xml: etree._Element) -> frozenset[int]:
    ports = {int(port.get("index", "0")) for port in xml.findall("devices/controller[@model='pcie-root-port']")}
    taken = {int(address.get("bus", "0"), 16) for address in xml.findall("devices/*/address[@type='pci']")}
    return frozenset(ports - taken)
