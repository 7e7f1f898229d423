"""Mediated devices, which a vGPU is one of: the kernel's examples of them, as libvirt tells of them and makes them."""

import uuid

import libvirt
from lxml import etree


def test_types_are_listed_and_devices_made() -> None:
    connection = libvirt.open("qemu:///system")
    parents = connection.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV_TYPES)
    types = {
        parent.name(): {
            found.get("id") for found in etree.fromstring(parent.XMLDesc()).findall("capability/capability/type")
        }
        for parent in parents
    }
    assert types["mtty_mtty"] == {"mtty-1", "mtty-2"}
    wanted = str(uuid.uuid4())
    device = connection.nodeDeviceCreateXML(f"""
        <device>
          <parent>mtty_mtty</parent>
          <capability type='mdev'><type id='mtty-2'/><uuid>{wanted}</uuid></capability>
        </device>""")
    assert device.name() == f"mdev_{wanted.replace('-', '_')}_mtty"
    device.destroy()
