"""A disk can be attached again although a libvirtd that died has left its block nodes, or its device, in QEMU."""

import json
from pathlib import Path
from typing import Any

import libvirt_qemu
import pytest
from lxml import etree

from machine_rig import DISK, Rig, new_machine
from virtfleet_api.machine import BlankSource, ImageDiskSource, Machine, MachineDisk
from virtfleet_node.core.errors import ConflictError

MIB = 1 << 20
LOGS = MachineDisk(name="logs", pool="default", source=BlankSource(), size_bytes=16 * MIB)
LINKED = MachineDisk(name="linked", pool="default", source=ImageDiskSource(image_uid=DISK), size_bytes=64 * MIB)


def ask(rig: Rig, machine: Machine, command: str, **arguments: object) -> dict[str, Any]:
    text = json.dumps({"execute": command, "arguments": arguments})
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuMonitorCommand(rig.domain(machine), text, 0))
    assert "error" not in answer, answer
    return answer


def nodes(rig: Rig, machine: Machine) -> set[str]:
    return {node["node-name"] for node in ask(rig, machine, "query-named-block-nodes", flat=True)["return"]}


def add(rig: Rig, machine: Machine, number: int, path: Path, **more: object) -> None:
    """Do what libvirtd does first when it attaches a disk."""
    file = {"driver": "file", "filename": str(path), "node-name": f"libvirt-{number}-storage"}
    ask(rig, machine, "blockdev-add", **file, **{"auto-read-only": True}, discard="unmap")
    named = {"node-name": f"libvirt-{number}-format", "file": f"libvirt-{number}-storage"}
    ask(rig, machine, "blockdev-add", driver="qcow2", **named, **more)


def attached(rig: Rig, machine: Machine) -> set[str]:
    xml = etree.fromstring(rig.domain(machine).XMLDesc())
    return {disk.findtext("serial", "") for disk in xml.findall("devices/disk")}


def next_number(rig: Rig) -> int:
    """Return the number that libvirt gives to the next node."""
    (status,) = (rig.node.directory / "run" / "qemu").glob("vf-*.xml")
    return max(int(found.get("index", "0")) for found in etree.parse(status).iterfind("nodename")) + 1


async def running_with_file(rig: Rig, disk: MachineDisk) -> tuple[Machine, Path]:
    """Return a running machine, and the file of a disk that it has had and was taken from it."""
    rig.reconnect()
    machine = await rig.put(new_machine(disks=(disk,), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    machine = await put_disks(rig, machine)
    await rig.reports.until(lambda: not attached(rig, machine), 30, "the disk to go")
    await rig.reports.until(lambda: not nodes(rig, machine), 30, "its nodes to go")
    return machine, rig.pool / "disks" / machine.uid / f"{disk.name}.qcow2"


async def put_disks(rig: Rig, machine: Machine, *disks: MachineDisk) -> Machine:
    return await rig.put(machine, hardware=machine.hardware.model_copy(update={"disks": disks}))


async def until_whole(rig: Rig, machine: Machine, name: str) -> None:
    await rig.reports.until(lambda: attached(rig, machine) == {name}, 20, f"{name} in the guest")
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.reason == "", 20, "a report without trouble")


@pytest.mark.parametrize("ahead", [0, 6], ids=["as-libvirt-numbers-next", "other-numbers"])
async def test_a_disk_is_attached_though_an_attach_was_cut_off_before(rig: Rig, ahead: int) -> None:
    machine, path = await running_with_file(rig, LOGS)
    add(rig, machine, next_number(rig) + ahead, path)
    machine = await put_disks(rig, machine, LOGS)
    await until_whole(rig, machine, "logs")
    assert len(nodes(rig, machine)) == 2, "nodes were left behind"
    await rig.remove(machine)


async def test_the_image_of_a_linked_disk_is_let_go_of_as_well(rig: Rig) -> None:
    machine, path = await running_with_file(rig, LINKED)
    image = rig.pool / "images" / DISK / "disk.qcow2"
    add(rig, machine, 41, image, **{"read-only": True})
    add(rig, machine, 40, path, backing="libvirt-41-format")
    machine = await put_disks(rig, machine, LINKED)
    await until_whole(rig, machine, "linked")
    assert not {name for name in nodes(rig, machine) if name.startswith("libvirt-4")}
    await rig.remove(machine)


async def test_a_device_that_libvirt_does_not_know_of_is_taken_from_the_guest_first(rig: Rig) -> None:
    machine, path = await running_with_file(rig, LOGS)
    add(rig, machine, 40, path)
    device = {"driver": "virtio-blk-pci", "bus": "pci.9", "addr": "0x0", "id": "ua-disk-logs", "serial": "lost"}
    ask(rig, machine, "device_add", drive="libvirt-40-format", **device)
    await rig.type(machine, "until grep -q lost /sys/block/vd?/serial; do sleep 0.1; done; echo FO$((0))UND", 1)
    await rig.until_console(machine, "FO0UND")
    machine = await put_disks(rig, machine, LOGS)
    await until_whole(rig, machine, "logs")
    (found,) = ask(rig, machine, "query-block")["return"]
    assert found["inserted"]["node-name"] != "libvirt-40-format"
    await rig.remove(machine)


async def test_a_file_that_somebody_else_has_open_stays_refused(rig: Rig) -> None:
    """Nothing is taken from a guest whose disk it is."""
    machine, path = await running_with_file(rig, LOGS)
    machine = await put_disks(rig, machine, LOGS)
    await until_whole(rig, machine, "logs")
    before = nodes(rig, machine)
    xml = f"<disk type='file'><driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vdz'/></disk>"
    with pytest.raises(ConflictError, match=r"lock|already"):
        await rig.hypervisor.attach_device(machine.uid, xml)
    assert nodes(rig, machine) == before
    await rig.remove(machine)
