"""What libvirt tells of hosts, as it is understood: mtty.xml was recorded, the others are written after its format."""

from pathlib import Path

import pytest
from lxml import etree

from virtfleet_api.report import HostDevice, MediatedType
from virtfleet_node.core.devices import NodeDevices
from virtfleet_node.core.node_devices import MAX_DEVICES, parse_node_devices


def read(name: str) -> NodeDevices:
    host = etree.parse(Path(__file__).parent / "inventories" / f"{name}.xml")
    return parse_node_devices(etree.tostring(device, encoding="unicode") for device in host.getroot())


def problems(devices: NodeDevices) -> dict[str, str]:
    return {one.report.address: one.report.problem for one in devices.found}


def test_a_gpu_with_virtual_functions_and_mediated_devices() -> None:
    devices = read("a10")
    assert [one.report.address for one in devices.found] == [
        "0000:81:00.0",
        "0000:81:00.4",
        "0000:81:00.5",
        "0000:c1:00.0",
    ]
    assert devices.found[1].report == HostDevice(
        address="0000:81:00.4",
        vendor="10de",
        product="2236",
        pci_class="030200",
        driver="nvidia",
        iommu_group=118,
        numa_cell=1,
        physical_function="0000:81:00.0",
        mediated_types=(
            MediatedType(name="nvidia-588", available=0),
            MediatedType(name="nvidia-592", available=1),
            MediatedType(name="nvidia-593", available=1),
        ),
    )
    assert problems(devices) == {
        "0000:81:00.0": "it has virtual functions, which machines are given instead",
        "0000:81:00.4": "",
        "0000:81:00.5": "",
        "0000:c1:00.0": "",
    }
    assert devices.mediated == {
        "c2177883-f1bb-47f0-914d-32a22e3a8804": "mdev_c2177883_f1bb_47f0_914d_32a22e3a8804_0000_81_00_5"
    }


def test_a_gpu_takes_along_what_else_is_on_its_card() -> None:
    devices = read("workstation")
    gpu = next(one for one in devices.found if one.report.address == "0000:01:00.0")
    assert gpu.report.problem == ""
    assert gpu.companions == ("0000:01:00.1", "0000:01:00.2"), "the serial bus has no driver, and need not go"
    sound = next(one for one in devices.found if one.report.address == "0000:00:1f.3")
    assert sound.report.problem == "0000:00:1f.4 (i801_smbus) of the same IOMMU group 13 is used by the host"
    assert sound.companions == ()


def test_what_the_host_uses_is_in_the_way() -> None:
    assert problems(read("server")) == {
        "0000:02:00.0": "0000:03:00.0 (nvme) of the same IOMMU group 20 is used by the host",
        "0000:03:00.0": "0000:02:00.0 (amdgpu) of the same IOMMU group 20 is used by the host",
        "0000:04:00.0": "",
        "0000:05:00.0": "the host has no IOMMU, or it is switched off: see its firmware and the kernel's intel_iommu",
    }


def test_what_is_no_pci_device_may_be_divided_as_well() -> None:
    (only,) = read("mtty").found
    assert only.report.address == "mtty_mtty"
    assert only.report.mediated_types == (
        MediatedType(name="mtty-1", available=24),
        MediatedType(name="mtty-2", available=12),
    )


def test_a_host_is_told_of_within_bounds() -> None:
    inner = "<class>0x020000</class><bus>{}</bus><slot>{}</slot>"
    text = f"<device><name>n</name><capability type='pci'>{inner}</capability></device>"
    many = parse_node_devices(text.format(bus, slot) for bus in range(64) for slot in range(32))
    assert len(many.found) == MAX_DEVICES
    assert parse_node_devices(()) == NodeDevices()


@pytest.mark.parametrize("name", ["a10", "workstation", "server"])
def test_no_bridge_is_ever_offered(name: str) -> None:
    assert not [one for one in read(name).found if one.report.pci_class.startswith("06")]
