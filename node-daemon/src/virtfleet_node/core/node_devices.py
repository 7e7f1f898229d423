"""The host's devices from libvirt's descriptions of them (https://libvirt.org/formatnode.html)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from virtfleet_api.report import HostDevice, MediatedType
from virtfleet_node.core.desired.element import Element, parse
from virtfleet_node.core.devices import FoundDevice, NodeDevices

MAX_DEVICES: Final = 1024
"""Devices that are told of; a host with every virtual function of some network cards has a few hundred."""

_MAX_TYPES: Final = 64
_BRIDGE: Final = "06"
_PCI_BRIDGE: Final = "0604"
"""The kernel leaves these out when it asks whether an IOMMU group is free of host drivers."""

_NO_HOST_DRIVER: Final = frozenset({"", "vfio-pci", "pci-stub"})

_GOES_ALONG: Final = ("03", "0403", "0c03", "0c80")
"""What a GPU's further functions are: displays, their sound, and the USB and serial bus of a USB-C connector."""

_NO_IOMMU: Final = "the host has no IOMMU, or it is switched off: see its firmware and the kernel's intel_iommu"
_IN_PARTS: Final = "it has virtual functions, which machines are given instead"


@dataclass(frozen=True)
class _Raw:
    """A PCI device, or another one whose driver makes mediated devices."""

    report: HostDevice
    group: tuple[str, ...] = ()
    divided: bool = False


def parse_node_devices(descriptions: Iterable[str]) -> NodeDevices:
    """Return the devices that descriptions tell of: all of them are needed, since devices of a group stand together."""
    parsed = [parse(text) for text in descriptions]
    raw = [found for device in parsed if (found := _raw(device)) is not None]
    known = {one.report.address: one.report for one in raw}
    kept = sorted((one for one in raw if not one.report.pci_class.startswith(_BRIDGE)), key=lambda o: o.report.address)
    return NodeDevices(
        found=tuple(_judge(one, known) for one in kept[:MAX_DEVICES]),
        mediated={uuid: device.findtext("name", "") for device in parsed if (uuid := _mediated(device))},
    )


def parse_address(element: Element) -> str:
    """Return the PCI address that libvirt writes in parts."""
    domain, bus, slot, function = (int(element.get(word, "0"), 16) for word in ("domain", "bus", "slot", "function"))
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _mediated(device: Element) -> str:
    return device.findtext("capability[@type='mdev']/uuid", "")


def _raw(device: Element) -> _Raw | None:
    pci, divides = device.find("capability[@type='pci']"), device.find("capability[@type='mdev_types']")
    if pci is not None:
        return _pci(device, pci)
    if divides is None:
        return None
    name = device.findtext("name", "")
    return _Raw(HostDevice(address=name, vendor="", product="", pci_class="", mediated_types=tuple(_types(divides))))


def _pci(device: Element, pci: Element) -> _Raw:
    parts = pci.find("capability[@type='virt_functions']")
    whole = pci.find("capability[@type='phys_function']/address")
    divides = pci.find("capability[@type='mdev_types']")
    group, numa = pci.find("iommuGroup"), pci.find("numa")
    report = HostDevice(
        address=_own_address(pci),
        vendor=_identifier(pci, "vendor"),
        product=_identifier(pci, "product"),
        pci_class=pci.findtext("class", "").removeprefix("0x"),
        driver=device.findtext("driver/name", ""),
        iommu_group=None if group is None else int(group.get("number", "0")),
        numa_cell=None if numa is None else int(numa.get("node", "0")),
        physical_function=None if whole is None else parse_address(whole),
        mediated_types=() if divides is None else tuple(_types(divides)),
    )
    members = () if group is None else tuple(parse_address(member) for member in group.findall("address"))
    return _Raw(report, members, divided=parts is not None and parts.find("address") is not None)


def _types(capability: Element) -> Iterator[MediatedType]:
    # Of what is no PCI device, libvirt writes the capability within itself.
    for kind in islice(capability.iter("type"), _MAX_TYPES):
        yield MediatedType(name=kind.get("id", ""), available=int(kind.findtext("availableInstances", "0")))


def _identifier(pci: Element, tag: str) -> str:
    found = pci.find(tag)
    return "" if found is None else found.get("id", "").removeprefix("0x")


def _own_address(pci: Element) -> str:
    domain, bus, slot, function = (int(pci.findtext(tag, "0")) for tag in ("domain", "bus", "slot", "function"))
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _judge(one: _Raw, known: Mapping[str, HostDevice]) -> FoundDevice:
    """Say why a device cannot be given as a whole, or what has to go with it."""
    members = sorted(set(one.group) - {one.report.address})
    others = [known[address] for address in members if address in known]
    held = [o for o in others if o.driver not in _NO_HOST_DRIVER and not o.pci_class.startswith(_PCI_BRIDGE)]
    along = tuple(o.address for o in held if _goes_along(o, one.report))
    problem = _problem(one, [o for o in held if o.address not in along])
    return FoundDevice(one.report.model_copy(update={"problem": problem}), () if problem else along)


def _goes_along(other: HostDevice, device: HostDevice) -> bool:
    """Tell whether it is a further function of the same card, and one that nobody misses on the host without it."""
    same_card = other.address.partition(".")[0] == device.address.partition(".")[0]
    return same_card and device.pci_class.startswith(_GOES_ALONG) and other.pci_class.startswith(_GOES_ALONG)


def _problem(one: _Raw, in_the_way: list[HostDevice]) -> str:
    if one.report.iommu_group is None:
        return _NO_IOMMU
    if one.divided:
        return _IN_PARTS
    if in_the_way:
        named = ", ".join(f"{other.address} ({other.driver})" for other in in_the_way)
        return f"{named} of the same IOMMU group {one.report.iommu_group} is used by the host"
    return ""
