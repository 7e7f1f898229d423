"""libvirt's node devices: describe them, make and remove mediated ones, give devices back. Everything here blocks."""

import logging
from collections.abc import Iterator
from typing import Final

import libvirt
from lxml import etree

from virtfleet_node.core.desired.element import add

_LOG = logging.getLogger(__name__)

_KINDS: Final = (
    libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV_TYPES
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV
)
_GONE: Final = frozenset({libvirt.VIR_ERR_NO_NODE_DEVICE})
_NO_DRIVER: Final = frozenset({libvirt.VIR_ERR_NO_SUPPORT})


def read_node_devices(connect: libvirt.virConnect) -> tuple[str, ...]:
    """Return the descriptions of PCI and mediated devices; none where libvirt has no driver for node devices."""
    if connect.getType() == "Test":
        return ()
    try:
        devices = connect.listAllDevices(_KINDS)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_DRIVER:
            raise
        _LOG.info("Having no devices for machines: libvirt has no driver for node devices")
        return ()
    return tuple(_descriptions(devices))


def _descriptions(devices: list[libvirt.virNodeDevice]) -> Iterator[str]:
    for device in devices:
        try:
            yield device.XMLDesc(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _GONE:
                raise


def make_mediated(connect: libvirt.virConnect, parent: str, kind: str, uuid: str) -> None:
    """Have a device's driver make a mediated device (mdevctl), unless there is one with this UUID."""
    if _find_mediated(connect, uuid) is not None:
        return
    device = etree.Element("device")
    add(device, "parent", parent)
    capability = add(device, "capability", type_="mdev")
    add(capability, "type", id=kind)
    add(capability, "uuid", uuid)
    connect.nodeDeviceCreateXML(etree.tostring(device, encoding="unicode"), 0)


def remove_mediated(connect: libvirt.virConnect, uuid: str) -> None:
    """Remove a mediated device, if it is there."""
    if (device := _find_mediated(connect, uuid)) is not None:
        device.destroy()


def give_back(connect: libvirt.virConnect, name: str) -> None:
    """Give a PCI device back to its host driver; libvirt refuses while a guest has it."""
    try:
        connect.nodeDeviceLookupByName(name).reAttach()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _GONE:
            raise


def build_name(address: str) -> str:
    """Return libvirt's name of a device: of a PCI address, or of what is known by its name anyway."""
    return "pci_" + address.replace(":", "_").replace(".", "_") if ":" in address else address


def _find_mediated(connect: libvirt.virConnect, uuid: str) -> libvirt.virNodeDevice | None:
    name = f"mdev_{uuid.replace('-', '_')}"
    devices = connect.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV)
    return next((device for device in devices if device.name().startswith(name)), None)
