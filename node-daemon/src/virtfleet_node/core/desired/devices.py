"""Devices of the host, given by VFIO, and the GPU whose commands the host's draws."""

from typing import Final

from lxml import etree

from virtfleet_api.device import GpuMode
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, Guest
from virtfleet_node.core.places import device_key

DEVICE_PREFIX: Final = "ua-device-"
"""libvirt keeps a device's name of ours when it begins with `ua-`."""

COMPANION_PREFIX: Final = "ua-function-"


def configure_devices(domain: Element, guest: Guest) -> None:
    """Write a <hostdev> for each chosen device, and for the further functions that go with it."""
    for device in guest.devices:
        for element in _build(guest, device):
            devices(domain).append(element)


def build_device_xml(guest: Guest, device: ChosenDevice) -> str:
    """Return the <hostdev> of one device without companions, to attach it to a running guest."""
    return etree.tostring(_build(guest, device)[0], encoding="unicode")


def configure_drawing(domain: Element, guest: Guest) -> None:
    """Write the GPU of QEMU's own (virtio-gpu with virgl), drawn on the host's render node; nothing is shown there."""
    drawn = next((device for device in guest.hardware.devices if device.mode is GpuMode.VIRGL), None)
    if drawn is None or guest.facts.domain_type is DomainType.TEST:
        return
    graphics = add(devices(domain), "graphics", type_="egl-headless")
    add(graphics, "gl", rendernode=guest.facts.render_node)
    video = add(devices(domain), "video")
    add(add(video, "model", type_="virtio", heads=1, primary="yes"), "acceleration", accel3d="yes")
    add(video, "alias", name=f"{DEVICE_PREFIX}{drawn.name}")
    add_port(video, guest, device_key(drawn.name))


def _build(guest: Guest, device: ChosenDevice) -> list[Element]:
    if device.is_mediated:
        element = etree.Element("hostdev", {"mode": "subsystem", "type": "mdev", "model": "vfio-pci"})
        add(add(element, "source"), "address", uuid=device.mediated_uuid)
        _place(element, guest, device, f"{DEVICE_PREFIX}{device.name}", 0)
        return [element]
    functions = (device.address, *device.companions)
    return [_function(guest, device, address, number) for number, address in enumerate(functions)]


def _function(guest: Guest, device: ChosenDevice, address: str, number: int) -> Element:
    """Return one function of a card; libvirt gives it back to its host driver afterwards (managed)."""
    element = etree.Element("hostdev", {"mode": "subsystem", "type": "pci", "managed": "yes"})
    domain, bus, rest = address.split(":")
    slot, _, function = rest.partition(".")
    where = {"domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}
    add(add(element, "source"), "address", **where)
    alias = f"{COMPANION_PREFIX}{number}-{device.name}" if number else f"{DEVICE_PREFIX}{device.name}"
    _place(element, guest, device, alias, number)
    return element


def _place(element: Element, guest: Guest, device: ChosenDevice, alias: str, number: int) -> None:
    """Write name and place; the functions of a card stay together on one port, as drivers expect them."""
    add(element, "alias", name=alias)
    add_port(element, guest, device_key(device.name))
    place = element.find("address")
    if place is not None and device.companions:
        place.set("function", f"0x{number}")
        if number == 0:
            place.set("multifunction", "on")
