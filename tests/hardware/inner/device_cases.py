"""Devices of the nested host, given to machines and back."""

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

from machine_rig import Rig, new_machine
from this_host import READY
from virtfleet_api.device import GpuMode
from virtfleet_api.machine import DeviceMatch, Machine, MachineDevice, Run
from virtfleet_api.report import WAITING_FOR_DEVICE, AssignedDevice, HostDevice, Phase

DISPLAY, NEAR, OTHER, FUNCTION = "0000:81:00.0", "0000:82:00.0", "0000:41:00.0", "0000:04:10.0"
START_SECONDS = 120
"""libvirt starts a guest with a device in some seconds here, and in a minute while the outer machine is busy."""

CARD = Path("/sys/bus/pci/devices/0000:04:00.0")


def wanted(name: str, *addresses: str) -> MachineDevice:
    matches = tuple(DeviceMatch(address=address) for address in addresses)
    return MachineDevice(name=name, device_class="example.org/display", matches=matches)


def driver(address: str) -> str:
    found = Path("/sys/bus/pci/devices", address, "driver")
    return found.resolve().name if found.exists() else ""


def taken(rig: Rig) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((rig.state / "devices.json").read_text())
    return found


def switch_on(card: Path) -> None:
    flags = next((card / "net").iterdir()) / "flags"
    flags.write_text(hex(int(flags.read_text(), 16) | 1))  # IFF_UP


async def with_devices(rig: Rig, machine: Machine, *devices: MachineDevice) -> Machine:
    return await rig.put(machine, hardware=machine.hardware.model_copy(update={"devices": devices}))


async def until_has(rig: Rig, machine: Machine, *names: str) -> None:
    def has() -> bool:
        report = rig.last(machine)
        return report is not None and {device.name for device in report.devices} == set(names)

    await rig.reports.until(has, 60, f"the machine has {names}")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.1)


async def until_driver(address: str, name: str) -> None:
    await until(lambda: driver(address) == name)


def parts_left(rig: Rig) -> int:
    """Return how many mediated devices of type mtty-2 the kernel's example still makes."""
    parents = (device for device in rig.devices.reports() if device.address == "mtty_mtty")
    return next((made.available for parent in parents for made in parent.mediated_types if made.name == "mtty-2"), 0)


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
    report = await rig.until_phase(machine, Phase.RUNNING, START_SECONDS)
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
    await rig.until_phase(second, Phase.RUNNING, START_SECONDS)
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.reports.until(
        lambda: (r := rig.last(machine)) and r.reason == WAITING_FOR_DEVICE, 20, "the first machine waits"
    )
    await rig.remove(machine)
    await rig.remove(second)
    await until_driver(DISPLAY, before)


async def test_devices_come_and_go_while_the_guest_runs_and_the_daemon_dies(rig: Rig) -> None:
    before, other = driver(NEAR), driver(OTHER)
    machine = new_machine()
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING, START_SECONDS)
    await rig.until_console(machine, READY)
    machine = await with_devices(rig, machine, wanted("gpu", NEAR), wanted("second", OTHER))
    await until_has(rig, machine, "gpu", "second")
    await rig.until_console(machine, "L2-PLUGGED")
    assert (driver(NEAR), driver(OTHER)) == ("vfio-pci", "vfio-pci")
    started = rig.domain(machine).ID()

    # Everything in memory is forgotten: the machine still has them, and nobody else gets one.
    await rig.restart_daemon()
    second = new_machine(devices=(wanted("gpu", NEAR, OTHER),))
    await rig.put(second)
    await rig.reports.until(
        lambda: (r := rig.last(second)) and r.reason == WAITING_FOR_DEVICE, 20, "the second machine waits"
    )
    waiting = rig.last(second)
    assert waiting is not None
    assert waiting.message.count(f"is used by {machine.namespace}/{machine.name}") == 2

    machine = await with_devices(rig, machine, wanted("second", OTHER))
    await until_has(rig, machine, "second")
    await rig.until_console(machine, "L2-UNPLUGGED")
    report = await rig.until_phase(second, Phase.RUNNING, START_SECONDS)
    assert [device.address for device in report.devices] == [NEAR], "it went from one to the other"
    await rig.remove(second)
    await until_driver(NEAR, before)
    assert rig.domain(machine).ID() == started
    await rig.remove(machine)
    await until_driver(OTHER, other)


async def test_what_a_killed_libvirtd_forgets_is_given_back(rig: Rig) -> None:
    """libvirtd, QEMU and the daemon die at once: nobody is left who would give the device back."""
    before = driver(DISPLAY)
    machine = new_machine(devices=(wanted("gpu", DISPLAY),))
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING, START_SECONDS)
    await rig.kill_daemon()
    (libvirtd,), qemus = rig.node.pids("libvirtd"), rig.qemu_pids()
    for pid in (libvirtd, *qemus):
        os.kill(pid, signal.SIGKILL)
    assert driver(DISPLAY) == "vfio-pci"
    await rig.reports.until(lambda: not rig.hypervisor.connected, 60, "it is noticed")
    await rig.reports.until(lambda: rig.hypervisor.connected, 120, "libvirtd is back")
    rig.reconnect()
    rig.domain(machine).undefine()  # by somebody else, so that nothing but devices.json tells of it
    await rig.restart_daemon()
    await until_driver(DISPLAY, before)
    await rig.reports.until(lambda: taken(rig)["devices"] == [], 20, "nothing is remembered")


async def test_what_was_taken_and_nobody_has_is_given_back(rig: Rig) -> None:
    before = driver(DISPLAY)
    await rig.kill_daemon()
    rig.libvirt.nodeDeviceLookupByName("pci_0000_81_00_0").detachFlags("vfio", 0)
    assert driver(DISPLAY) == "vfio-pci"
    (rig.state / "devices.json").write_text(json.dumps({"devices": [DISPLAY], "mediated": [str(uuid.uuid4())]}))
    await rig.restart_daemon()
    await until_driver(DISPLAY, before)
    await rig.reports.until(lambda: taken(rig) == {"devices": [], "mediated": []}, 20, "nothing is remembered")


async def test_a_virtual_function_is_given_and_its_card_is_not(rig: Rig) -> None:
    assert reported(rig, CARD.name).problem == ""
    switch_on(CARD)  # without it the functions' driver cannot reset them
    (CARD / "sriov_numvfs").write_text("2")
    try:
        await rig.reports.until(
            lambda: [d for d in rig.devices.reports() if d.physical_function == CARD.name], 60, "functions are told of"
        )
        await rig.reports.until(lambda: reported(rig, CARD.name).problem, 60, "the card is not given any more")
        await until_driver(FUNCTION, "igbvf")
        matches = (DeviceMatch(vendor="8086", product="10ca", pci_class="02"),)
        machine = new_machine(devices=(MachineDevice(name="nic", device_class="intel.com/VF", matches=matches),))
        await rig.put(machine)
        report = await rig.until_phase(machine, Phase.RUNNING, START_SECONDS)
        await rig.until_console(machine, READY)
        assert [device.address for device in report.devices] == [FUNCTION]
        assert " 10ca8086 0200" in rig.console(machine)
        await rig.remove(machine)
        await until_driver(FUNCTION, "igbvf")
    finally:
        (CARD / "sriov_numvfs").write_text("0")


async def test_a_part_of_a_device_is_made_and_removed(rig: Rig) -> None:
    await rig.reports.until(lambda: parts_left(rig) == 12, 60, "the parent is told of")
    part = MachineDevice(
        name="part",
        device_class="example.org/serial",
        mode=GpuMode.MEDIATED,
        matches=(DeviceMatch(mediated_type="mtty-2"),),
    )
    machine = new_machine(devices=(part,))
    await rig.put(machine)
    (given,) = (await rig.until_phase(machine, Phase.RUNNING, START_SECONDS)).devices
    made = Path("/sys/bus/mdev/devices", given.address)
    assert made.exists()
    await rig.until_console(machine, READY)
    assert " 32534348 0700" in rig.console(machine)
    await rig.reports.until(lambda: reported(rig, "mtty_mtty").used_by == (machine.uid,), 20, "the node tells of it")
    assert parts_left(rig) == 11

    machine = await with_devices(rig, machine)
    await until_has(rig, machine)
    await until(lambda: not made.exists())
    await rig.restart_daemon()
    machine = await with_devices(rig, machine, part)
    await until_has(rig, machine, "part")
    assert made.exists(), "it is the same one again"
    await rig.remove(machine)
    await until(lambda: not made.exists())
