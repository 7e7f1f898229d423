"""Devices of the nested host, given to machines and back."""

import asyncio
from pathlib import Path

from machine_rig import Rig, new_machine
from this_host import READY
from virtfleet_api.machine import DeviceMatch, MachineDevice, Run
from virtfleet_api.report import WAITING_FOR_DEVICE, AssignedDevice, HostDevice, Phase

DISPLAY, NEAR, OTHER, FUNCTION = "0000:81:00.0", "0000:82:00.0", "0000:41:00.0", "0000:04:10.0"
CARD = Path("/sys/bus/pci/devices/0000:04:00.0")


def wanted(name: str, *addresses: str) -> MachineDevice:
    matches = tuple(DeviceMatch(address=address) for address in addresses)
    return MachineDevice(name=name, device_class="example.org/display", matches=matches)


def driver(address: str) -> str:
    found = Path("/sys/bus/pci/devices", address, "driver")
    return found.resolve().name if found.exists() else ""


async def until_driver(address: str, name: str) -> None:
    async with asyncio.timeout(60):
        while driver(address) != name:
            await asyncio.sleep(0.1)


def reported(rig: Rig, address: str) -> HostDevice:
    return next(device for device in rig.devices.reports() if device.address == address)


async def test_the_inventory_tells_what_can_be_given_and_why_not(rig: Rig) -> None:
    display, sata = reported(rig, DISPLAY), reported(rig, "0000:00:1f.2")
    assert (display.vendor, display.product, display.pci_class[:2]) == ("1234", "1111", "03")
    assert (display.driver, display.numa_cell, display.problem) == ("bochs-drm", 1, "")
    assert display.iommu_group is not None
    assert "0000:00:1f." in sata.problem
    assert sata.problem.endswith("is used by the host")
    assert not [device for device in rig.devices.reports() if device.pci_class.startswith("06")]


async def test_a_machine_gets_a_device_and_the_host_has_it_back(rig: Rig) -> None:
    before = driver(DISPLAY)
    machine = new_machine(devices=(wanted("gpu", DISPLAY),))
    await rig.put(machine)
    report = await rig.until_phase(machine, Phase.RUNNING)
    await rig.until_console(machine, READY)
    assert " 11111234 0380" in rig.console(machine)
    assert report.devices == (AssignedDevice(name="gpu", device_class="example.org/display", address=DISPLAY),)
    assert driver(DISPLAY) == "vfio-pci"
    await rig.reports.until(lambda: reported(rig, DISPLAY).used_by == (machine.uid,), 20, "the node tells of it")

    # A second machine waits, says why, and has the device once the first is off.
    second = new_machine(devices=(wanted("gpu", DISPLAY),))
    await rig.put(second)
    await rig.reports.until(
        lambda: (r := rig.last(second)) and r.reason == WAITING_FOR_DEVICE, 20, "the second machine waits"
    )
    waiting = rig.last(second)
    assert waiting is not None
    assert waiting.phase is Phase.PROVISIONING
    assert waiting.message == (
        f"No device example.org/display of the node is free: {DISPLAY} is used by {machine.namespace}/{machine.name}."
    )
    machine = await rig.put(machine, run=Run.STOPPED, grace_period_seconds=0)
    await rig.until_phase(machine, Phase.STOPPED)
    await rig.until_phase(second, Phase.RUNNING)
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.reports.until(
        lambda: (r := rig.last(machine)) and r.reason == WAITING_FOR_DEVICE, 20, "the first machine waits"
    )
    await rig.remove(machine)
    await rig.remove(second)
    await until_driver(DISPLAY, before)
