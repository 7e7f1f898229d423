"""The description of a guest that goes on with the memory of a snapshot. Pure.

What the guest sees must be as it was: QEMU refuses the memory of another machine. So the description in the save image
is taken, and only what lies behind the devices is exchanged: files, and what network cards are plugged into.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lxml import etree

from virtfleet_api.machine import Hardware, Machine
from virtfleet_node.core.desired.disks import ALIAS_PREFIX as DISK_PREFIX
from virtfleet_node.core.desired.disks import add_backing
from virtfleet_node.core.desired.element import Element, add, devices, parse
from virtfleet_node.core.desired.guest import Guest, ResolvedDisk
from virtfleet_node.core.desired.identity import add_identity
from virtfleet_node.core.desired.interfaces import ALIAS_PREFIX as CARD_PREFIX
from virtfleet_node.core.desired.metadata import add_metadata
from virtfleet_node.core.desired.numa import configure_pins
from virtfleet_node.core.desired.serial import AGENT_CHANNEL
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.places import Places, assign, card_key
from virtfleet_node.core.record import Stored

STRANGER: Final = "_"
"""Begins the name of a card that is not the machine's own; no card of a document can have such a name."""

_PLUGS: Final = ("source", "virtualport", "bandwidth", "filterref", "vlan", "port", "target", "link")
"""What says where a card is plugged in."""


@dataclass(frozen=True)
class Saved:
    """What a snapshot says of its guest."""

    description: str
    """The domain's XML in the save image."""
    hardware: Hardware
    places: Places


@dataclass(frozen=True)
class WarmFiles:
    """What the devices of the guest are given on the host."""

    disks: Mapping[str, ResolvedDisk]
    """By their names in the snapshot."""
    console_log: Path
    cloud_init: Path | None = None
    media: Mapping[str, Path] = field(default_factory=dict)
    """What is in the drives, by name."""


@dataclass(frozen=True)
class WarmDomain:
    """A guest as it is to be started."""

    hardware: Hardware
    """What it is started with."""
    places: Places
    strangers: tuple[str, ...]
    """libvirt's names of the cards that are not the machine's own: their cables are pulled before the guest goes on."""
    domain: Element

    def build_xml(self, guest: Guest | None = None, stored: Stored | None = None) -> str:
        """Return the XML, with where the guest runs on the host, and with what is kept of the machine."""
        domain = parse(etree.tostring(self.domain))
        if guest is not None:
            configure_pins(domain, guest)
        if stored is not None:
            add_metadata(domain, stored)
        return etree.tostring(domain, encoding="unicode")


def build_warm_domain(saved: Saved, machine: Machine, files: WarmFiles) -> WarmDomain:
    """Return a machine's guest as it goes on from a snapshot.

    Raises:
        ConflictError: the guest had a disk that there is no file for.
    """
    domain = parse(saved.description)
    _name(domain, machine)
    _unpin(domain)
    parent = devices(domain)
    for disk in parent.findall("disk"):
        _exchange_file(disk, files)
    for log in parent.findall("*/log"):
        log.set("file", str(files.console_log))
    for channel in parent.findall("channel"):
        _forget_socket(channel)
    strangers = dict(_unplug_strangers(parent, saved.hardware, machine.hardware))
    return WarmDomain(
        hardware=_started(saved.hardware, machine.hardware),
        places=_places(saved.places, machine.hardware, strangers, parent),
        strangers=tuple(strangers.values()),
        domain=domain,
    )


def _name(domain: Element, machine: Machine) -> None:
    _remove(domain, "name", "uuid", "title", "metadata")
    add_identity(domain, machine)


def _unpin(domain: Element) -> None:
    """Forget where the guest ran on the host."""
    _remove(domain, "numatune")
    for tune in domain.findall("cputune"):
        _remove(tune, "vcpupin", "emulatorpin")
    vcpu = domain.find("vcpu")
    if vcpu is not None and "cpuset" in vcpu.attrib:
        del vcpu.attrib["cpuset"]


def _remove(parent: Element, *tags: str) -> None:
    for tag in tags:
        for found in parent.findall(tag):
            parent.remove(found)


def _exchange_file(disk: Element, files: WarmFiles) -> None:
    name = _alias(disk).removeprefix(DISK_PREFIX)
    if disk.get("device") == "cdrom":
        medium = files.media.get(name) if _alias(disk) else files.cloud_init
        _put_medium(disk, medium)
        return
    resolved = files.disks.get(name)
    if resolved is None:
        called = name or _attribute(disk, "target", "dev")
        raise ConflictError(
            f"The guest of the snapshot had a disk {called}, for which the machine has none: restore it without memory."
        )
    _remove(disk, "source", "backingStore")
    add(disk, "source", file=str(resolved.file.path))
    add_backing(disk, resolved.backing)


def _put_medium(drive: Element, medium: Path | None) -> None:
    _remove(drive, "source", "backingStore")
    if medium is not None:
        add(drive, "source", file=str(medium))
        add(drive, "backingStore")


def _forget_socket(channel: Element) -> None:
    source = channel.find("source")
    if source is not None and _attribute(channel, "target", "name") == AGENT_CHANNEL:
        channel.remove(source)


def _unplug_strangers(parent: Element, captured: Hardware, desired: Hardware) -> Iterator[tuple[str, str]]:
    """Unplug the cards that are not the machine's own; yield their names, and libvirt's from now on."""
    for card in parent.findall("interface"):
        name = _card_name(card, captured)
        if not _is_own(card, name, desired):
            yield name, _unplug(card, name)


def _is_own(card: Element, name: str, desired: Hardware) -> bool:
    """Tell whether a card is as the machine's document says, and has it by the same port of the switch."""
    wanted = next((interface for interface in desired.interfaces if interface.name == name), None)
    if wanted is None or card.get("type") not in {"user", "bridge"}:
        return False
    seen = (
        _attribute(card, "mac", "address"),
        _attribute(card, "model", "type"),
        _attribute(card, "virtualport/parameters", "interfaceid") or None,
    )
    return seen == (wanted.mac, wanted.model, wanted.port)


def _unplug(card: Element, name: str) -> str:
    """Have a card be plugged into nothing: QEMU's NAT as before, since it has no device on the host, else a tap."""
    if card.get("type") != "user":
        card.set("type", "ethernet")
    _remove(card, *_PLUGS, "alias")
    alias = f"{CARD_PREFIX}{STRANGER}{name}"
    add(card, "alias", name=alias)
    return alias


def _card_name(card: Element, captured: Hardware) -> str:
    alias, mac = _alias(card), _attribute(card, "mac", "address")
    if alias.startswith(CARD_PREFIX):
        return alias.removeprefix(CARD_PREFIX)
    return next((interface.name for interface in captured.interfaces if interface.mac == mac), mac.replace(":", ""))


def _started(captured: Hardware, desired: Hardware) -> Hardware:
    """Return what the guest is started with; the cloud-init medium is the machine's own, if the guest has a drive."""
    if captured.cloud_init_digest is None or desired.cloud_init_digest is None:
        return captured
    return captured.model_copy(update={"cloud_init_digest": desired.cloud_init_digest})


def _places(captured: Places, desired: Hardware, strangers: Mapping[str, str], parent: Element) -> Places:
    """Return where the devices sit; the machine's own cards get ports that are free, as long as there are such."""
    ports = {key: port for key, port in captured.ports.items() if key not in map(card_key, strangers)}
    kept = {card_key(f"{STRANGER}{name}"): captured.ports[card_key(name)] for name in _seated(captured, strangers)}
    free = sorted(_free_ports(parent) - set(captured.ports.values()))
    for interface in desired.interfaces:
        key = card_key(interface.name)
        if key not in ports and free:
            ports[key] = free.pop(0)
        elif key not in ports and interface.name in _seated(captured, strangers):
            ports[key] = captured.ports[key]  # once the guest has let go of the other
    return assign(captured.model_copy(update={"ports": {**ports, **kept}}), desired)


def _seated(captured: Places, strangers: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in strangers if card_key(name) in captured.ports)


def _free_ports(parent: Element) -> frozenset[int]:
    ports = {int(port.get("index", "0")) for port in parent.findall("controller[@model='pcie-root-port']")}
    taken = {int(address.get("bus", "0"), 16) for address in parent.findall("*/address[@type='pci']")}
    return frozenset(ports - taken)


def _alias(element: Element) -> str:
    return _attribute(element, "alias", "name")


def _attribute(parent: Element, tag: str, name: str) -> str:
    found = parent.find(tag)
    return "" if found is None else found.get(name, "")
