"""The hardware of the nested host, as its libvirtd tells of it, and what QEMU does with it."""

import time
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from virtfleet_dev.nested_image import guest_kernel

_NODE_DEVICES = libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV


@pytest.fixture(scope="module")
def connection() -> libvirt.virConnect:
    return libvirt.open("qemu:///system")


def _devices(connection: libvirt.virConnect) -> dict[str, etree._Element]:
    found = {device.name(): etree.fromstring(device.XMLDesc()) for device in connection.listAllDevices(_NODE_DEVICES)}
    return {name.removeprefix("pci_"): xml for name, xml in found.items()}


def test_has_two_cells_with_distances(connection: libvirt.virConnect) -> None:
    cells = etree.fromstring(connection.getCapabilities()).findall("host/topology/cells/cell")
    assert [cell.get("id") for cell in cells] == ["0", "1"]
    assert [[cpu.get("id") for cpu in cell.findall("cpus/cpu")] for cell in cells] == [["0", "1"], ["2", "3"]]
    assert [[d.get("value") for d in cell.findall("distances/sibling")] for cell in cells] == [
        ["10", "20"],
        ["20", "10"],
    ]
    assert all(int(cell.findtext("memory", "0")) > 1800 << 10 for cell in cells)


def test_lists_devices_to_pass_through(connection: libvirt.virConnect) -> None:
    devices = _devices(connection)
    # The group's other members are in it as well: the device alone is in its own.
    groups = {name: len(xml.findall("capability/iommuGroup/address")) for name, xml in devices.items()}
    classes = {name: xml.findtext("capability/class") for name, xml in devices.items()}
    assert {name for name, kind in classes.items() if kind and kind.startswith("0x03")} == {
        *("0000_01_00_0", "0000_02_00_0", "0000_03_00_0", "0000_41_00_0", "0000_81_00_0", "0000_82_00_0"),
    }
    assert all(groups[name] == 1 for name in ("0000_01_00_0", "0000_41_00_0", "0000_81_00_0", "0000_04_00_0"))
    assert groups["0000_00_1f_2"] == 3  # the chipset's SATA shares it with two others
    cells = {name: xml.find("capability/numa") for name, xml in devices.items()}
    assert cells["0000_01_00_0"] is None
    assert [cells[f"0000_{bus}_00_0"].get("node") for bus in ("41", "81", "82")] == ["0", "1", "1"]


def test_network_cards_have_virtual_functions(connection: libvirt.virConnect) -> None:
    for name in ("0000_04_00_0", "0000_05_00_0"):
        functions = _devices(connection)[name].find("capability/capability[@type='virt_functions']")
        assert functions is not None
        assert functions.get("maxCount") == "7"


def test_a_guest_has_a_device_of_the_host(connection: libvirt.virConnect, tmp_path: Path) -> None:
    console = tmp_path / "console"
    driver = Path("/sys/bus/pci/devices/0000:81:00.0/driver")
    before = driver.resolve().name
    domain = connection.createXML(f"""
        <domain type='qemu'>
          <name>plain</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
          <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{guest_kernel()}</kernel></os>
          <devices>
            <controller type='usb' model='none'/><memballoon model='none'/>
            <serial type='file'><source path='{console}'/></serial>
            <hostdev mode='subsystem' type='pci' managed='yes'>
              <source><address domain='0' bus='0x81' slot='0' function='0'/></source>
            </hostdev>
          </devices>
        </domain>""")
    try:
        assert driver.resolve().name == "vfio-pci"
        end = time.monotonic() + 90
        while "L2-READY" not in console.read_text():
            assert time.monotonic() < end, console.read_text()
            time.sleep(0.2)
        assert " 11111234 03800002" in console.read_text()
    finally:
        domain.destroy()
    assert driver.resolve().name == before
