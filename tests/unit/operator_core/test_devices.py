"""Device classes: what they are made of, what is counted, and what machines and nodes show."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from virtfleet_api.device import DeviceClassRule, GpuMode
from virtfleet_api.machine import DeviceMatch, MachineDevice
from virtfleet_api.report import AssignedDevice, HostDevice, MachineReport, MediatedType, NodeReport, Phase
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_machine_status import DeviceStatus, VirtualMachineStatus
from virtfleet_api.vm_node import NodeDeviceStatus, VMNode
from virtfleet_operator.core.devices import (
    VIRGL,
    asked_devices,
    classes_of,
    compile_devices,
    device_refusal,
    device_units,
    promised_devices,
    rules_of,
)
from virtfleet_operator.core.place import Candidate, Load, Need, Placed, place
from virtfleet_operator.core.summarise import MachineFacts, NodeFacts, summarise_machine, summarise_node
from virtfleet_operator.core.verdict import Unschedulable
from virtfleet_operator.settings import SettingsError, read_settings

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
A10, ANY, VGPU = "nvidia.com/A10", "example.org/gpu", "nvidia.com/A10-4Q"
FLEET = tuple(
    DeviceClassRule.model_validate(rule)
    for rule in (
        {"device": A10, "selectors": [{"vendor": "10de", "product": "2236"}]},
        {"device": ANY, "selectors": [{"pciClass": "03"}]},
        {"device": VGPU, "selectors": [{"vendor": "10de", "mediatedType": "nvidia-593"}]},
    )
)


def gpu(bus: int, **more: Any) -> HostDevice:
    known = {"vendor": "10de", "product": "2236", "pci_class": "030200", "iommu_group": bus}
    return HostDevice.model_validate({"address": f"0000:{bus:02x}:00.0"} | known | more)


def report(*devices: HostDevice, **more: Any) -> NodeReport:
    plain = {"daemon_version": "", "libvirt_version": "", "qemu_version": "", "hypervisor": "kvm"}
    sizes = {"architecture": "x86_64", "cpus": 4, "cpu_frequency_hz": 1, "memory_bytes": 2**30}
    return NodeReport.model_validate({"name": "a", "devices": devices} | plain | sizes | more)


def node(*rules: dict[str, Any]) -> VMNode:
    return VMNode.model_validate({"metadata": {"name": "a"}, "spec": {"devices": list(rules)}})


def test_a_nodes_own_rule_wins_over_the_fleets() -> None:
    own = {"device": A10, "selectors": [{"address": "0000:81:00.0"}]}
    rules = rules_of(node(own), FLEET)
    assert [selector.address for selector in rules[A10]] == ["0000:81:00.0"]
    assert rules[ANY] == FLEET[1].selectors
    assert rules_of(None, FLEET)[A10] == FLEET[0].selectors


def test_everything_that_is_written_in_a_selector_must_match() -> None:
    found = classes_of(node(), FLEET, report(gpu(1), gpu(2, product="1234"), gpu(3, pci_class="020000", vendor="8086")))
    assert {name: [device.address[5:7] for device in devices] for name, devices in found.items()} == {
        A10: ["01"],
        ANY: ["01", "02"],
        VGPU: [],
    }


def test_a_class_becomes_what_its_node_makes_of_it(machine: Callable[..., VirtualMachine]) -> None:
    vm = machine(
        gpus=[
            {"name": "whole", "device": A10},
            {"name": "part", "device": VGPU, "mode": "Mediated"},
            {"name": "drawn", "mode": "Virgl"},
            {"name": "wrong", "device": A10, "mode": "Mediated"},
        ],
        hostDevices=[{"name": "nic", "device": "intel.com/none"}],
    )
    assert compile_devices(vm, rules_of(None, FLEET)) == (
        MachineDevice(name="whole", device_class=A10, matches=(DeviceMatch(vendor="10de", product="2236"),)),
        MachineDevice(
            name="part",
            device_class=VGPU,
            mode=GpuMode.MEDIATED,
            matches=(DeviceMatch(vendor="10de", mediated_type="nvidia-593"),),
        ),
        MachineDevice(name="drawn", mode=GpuMode.VIRGL),
        MachineDevice(name="wrong", device_class=A10, mode=GpuMode.MEDIATED),
        MachineDevice(name="nic", device_class="intel.com/none"),
    )
    asked = Counter([A10, f"{VGPU} (mediated)", VIRGL, f"{A10} (mediated)", "intel.com/none"])
    assert asked_devices(vm) == asked
    assert promised_devices(vm) == asked


@pytest.mark.parametrize("off", [{"runStrategy": "Halted"}, {"runStrategy": "Manual", "powerState": "Stopped"}])
def test_a_machine_that_shall_be_off_is_promised_no_device(
    machine: Callable[..., VirtualMachine], off: dict[str, str]
) -> None:
    assert promised_devices(machine(gpus=[{"name": "gpu", "device": A10}], **off)) == {}


def test_devices_of_one_group_are_given_once_and_those_with_a_problem_never() -> None:
    seen = report(gpu(1), gpu(2, iommu_group=1), gpu(3, problem="is in the way"), gpu(4))
    assert device_units(node(), FLEET, seen)[A10] == ("group-1", "group-4")


def test_parts_are_counted_whether_they_are_made_or_not() -> None:
    made = (MediatedType(name="nvidia-593", available=2), MediatedType(name="nvidia-594", available=9))
    seen = report(gpu(1, mediated_types=made, used_by=("u1", "u1")), render_node=True)
    units = device_units(node(), FLEET, seen)
    assert len(units[f"{VGPU} (mediated)"]) == 4
    assert VGPU not in units
    assert VIRGL in units


UNITS = {A10: ("1", "2"), ANY: ("1", "2", "3")}


@pytest.mark.parametrize(
    ("asked", "promised", "said"),
    [
        ({A10: 1}, {}, ""),
        ({A10: 3}, {}, f"without device {A10}"),
        ({"x.org/y": 1}, {}, "without device x.org/y"),
        ({A10: 1}, {ANY: 2}, ""),
        ({A10: 2}, {ANY: 1}, ""),
        ({A10: 2}, {ANY: 2}, f"with too few free devices {A10}"),
        ({A10: 1}, {A10: 2}, f"with too few free devices {A10}"),
        ({ANY: 1}, {A10: 2}, ""),
        ({ANY: 2}, {A10: 2}, f"with too few free devices {ANY}"),
        ({VIRGL: 1}, {}, f"without device {VIRGL}"),
    ],
)
def test_overlapping_classes_are_counted_as_they_can_be_given(
    asked: dict[str, int], promised: dict[str, int], said: str
) -> None:
    assert device_refusal(asked, promised, UNITS) == said


def test_one_render_node_draws_for_any_number_of_machines() -> None:
    assert device_refusal({VIRGL: 1}, {VIRGL: 99}, {VIRGL: ("render node",)}) == ""


def test_a_full_host_of_virtual_functions_is_counted_in_no_time() -> None:
    units = {A10: tuple(map(str, range(1000)))}
    assert device_refusal({A10: 1}, {A10: 999}, units) == ""
    assert device_refusal({A10: 1}, {A10: 1000}, units) == f"with too few free devices {A10}"


def test_placement_says_which_device_is_missing() -> None:
    nodes = [Candidate(name, vcpus=8, memory_bytes=memory) for name, memory in (("a", 9), ("b", 9), ("c", 100))]
    asked = Need(1, 10, devices={A10: 1})
    said = f"0/3 nodes fit: 3 without device {A10}"
    assert place(asked, nodes) == Unschedulable(said)
    have = [Candidate(n.name, vcpus=8, memory_bytes=n.memory_bytes, devices={A10: ("1",)}) for n in nodes[:2]]
    assert place(asked, [*have, nodes[2]]) == Unschedulable(
        f"0/3 nodes fit: 2 with too little free memory, 1 without device {A10}"
    )
    good = Candidate("d", vcpus=8, memory_bytes=100, devices={A10: ("1",)})
    assert place(asked, [*nodes, good]) == Placed("d")
    taken = Candidate("d", vcpus=8, memory_bytes=100, devices={A10: ("1",)}, load=Load(devices={A10: 1}))
    assert place(asked, [taken]) == Unschedulable(f"0/1 nodes fit: 1 with too few free devices {A10}")


def test_devices_of_loads_add_up() -> None:
    one, two = Load(1, devices={A10: 1}), Load(1, devices={A10: 1, ANY: 2})
    assert one + two == Load(2, devices={A10: 2, ANY: 2})
    assert one + two - two == one


def test_a_node_shows_what_its_classes_are_made_of_and_who_has_it() -> None:
    parts = (MediatedType(name="nvidia-593", available=3),)
    seen = report(
        gpu(1, used_by=("u1",), numa_cell=1),
        gpu(2, mediated_types=parts, product="x", pci_class="020000", used_by=("u2", "u1", "u1")),
        gpu(3, product="y", pci_class="040300"),
        gpu(4, problem="0000:04:00.1 (ahci) is in the way\x1b"),
    )
    facts = NodeFacts(report=seen, heard=True, device_rules=FLEET[:1] + FLEET[2:], machine_names={"u1": "shop/db"})
    status = summarise_node(node(), facts, NOW)
    assert status.devices == (
        NodeDeviceStatus(device=A10, address="0000:01:00.0", iommu_group=1, numa=1, used_by="shop/db"),
        NodeDeviceStatus(
            device=A10, address="0000:04:00.0", iommu_group=4, problem="0000:04:00.1 (ahci) is in the way"
        ),
        NodeDeviceStatus(device=VGPU, address="0000:02:00.0", iommu_group=2, used_by="shop/db, u2", available=3),
    )


def test_a_lying_node_fills_no_status() -> None:
    seen = report(*(gpu(n % 256, address=f"{n:04x}:00:00.0") for n in range(3000)))
    assert len(summarise_node(node(), NodeFacts(report=seen, heard=True, device_rules=FLEET), NOW).devices) == 256


def test_a_machine_shows_its_devices_and_those_that_the_guest_holds(machine: Callable[..., VirtualMachine]) -> None:
    given = (AssignedDevice(name="gpu", device_class=A10, address="0000:01:00.0"),) * 2
    told = MachineReport(
        uid="u", namespace="n", name="m", phase=Phase.RUNNING, devices=given, held_devices=("gpu",), vcpus=1
    )
    meta = machine().metadata
    status = summarise_machine(meta, VirtualMachineStatus(), MachineFacts(node_name="a", report=told), NOW)
    assert status.devices == (DeviceStatus(name="gpu", device=A10, address="0000:01:00.0"),)
    held = next(c for c in status.conditions if c.type == "RestartRequired")
    assert held.reason == "GuestHolds"
    assert "gpu" in held.message
    silent = summarise_machine(meta, status, MachineFacts(node_name="a", node_heard=False), NOW)
    assert silent.devices == status.devices


def test_the_operators_file_names_classes_for_all_nodes(tmp_path: Path) -> None:
    file = tmp_path / "operator.yaml"
    file.write_text('devices: [{device: nvidia.com/A10, selectors: [{vendor: "10de", product: "2236"}]}]\n')
    assert read_settings(file).devices == FLEET[:1]
    file.write_text("devices: [{device: nvidia.com/A10, selectors: [{}]}]\n")
    with pytest.raises(SettingsError, match=r"devices\[0\]\.selectors\[0\]: matches every device"):
        read_settings(file)
