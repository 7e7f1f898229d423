"""Disks and media come and go under a running guest, as its document says."""

import pytest
from lxml import etree

from machine_rig import CMDLINE, DISK, GENERIC_KERNEL, Rig, new_machine
from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import (
    BlankSource,
    CloudInitFiles,
    EmptySource,
    ImageDiskSource,
    IsoSource,
    Machine,
    MachineDisk,
    MachineKernel,
    Run,
)
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage.media import build_medium

MIB = 1 << 20
ISOS = {
    "first": "cccccccc-0000-4000-8000-000000000001",
    "second": "cccccccc-0000-4000-8000-000000000002",
}


def disk(name: str, bus: DiskBus = DiskBus.VIRTIO, mebibytes: int = 16) -> MachineDisk:
    return MachineDisk(name=name, pool="default", source=BlankSource(), size_bytes=mebibytes * MIB, bus=bus)


def drive(medium: str | None) -> MachineDisk:
    source = IsoSource(image_uid=ISOS[medium]) if medium else EmptySource()
    return MachineDisk(name="cd", pool="default", source=source, bus=DiskBus.CDROM)


async def put_disks(rig: Rig, machine: Machine, *disks: MachineDisk, **change: object) -> Machine:
    hardware = machine.hardware.model_copy(update={"disks": disks})
    return await rig.put(machine, hardware=hardware, **change)


def serials(rig: Rig, machine: Machine) -> dict[str, str]:
    """Return target and PCI bus of the disks that libvirt shows, by serial."""
    xml = etree.fromstring(rig.domain(machine).XMLDesc())
    return {
        found.findtext("serial", ""): f"{found.find('target').get('dev')} {found.find('address').get('bus')}"
        for found in xml.findall("devices/disk[@device='disk']")
    }


async def until_disks(rig: Rig, machine: Machine, *names: str) -> None:
    await rig.reports.until(lambda: set(serials(rig, machine)) == set(names), 30, f"disks {names}")


@pytest.fixture
def isos(rig: Rig) -> None:
    for name, uid in ISOS.items():
        path = rig.pool / "images" / uid / "disk"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(build_medium(CloudInitFiles(meta_data=f"{name} medium\n")))
        rig.images.known[uid] = ImageFiles(path, ImageFormat.RAW, path.stat().st_size)


async def test_disks_come_and_go_under_a_running_guest_and_keep_their_places(rig: Rig) -> None:
    root, data = disk("root"), disk("data")
    machine = await rig.put(new_machine(disks=(root,), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    (qemu,) = rig.qemu_pids()

    machine = await put_disks(rig, machine, root, data)
    await rig.type(machine, "until [ -b /dev/vdb ]; do sleep 0.1; done; echo FI$((0))RST")
    await rig.until_console(machine, "FI0RST")  # a guest names two that come at once in any order
    machine = await put_disks(rig, machine, root, data, disk("logs"))
    await rig.type(machine, "until [ -b /dev/vdc ]; do sleep 0.1; done; echo SE$((0))EN $(cat /sys/block/vd?/serial)")
    await rig.until_console(machine, "SE0EN rootdatalogs")
    await rig.type(machine, "echo kept | dd of=/dev/vdc conv=fsync 2>/dev/null; echo WRIT$((0))TEN")
    await rig.until_console(machine, "WRIT0TEN")
    before = serials(rig, machine)

    machine = await put_disks(rig, machine, root, disk("logs"))
    await until_disks(rig, machine, "root", "logs")
    await rig.type(machine, "echo LE$((0))FT $(cat /sys/block/vd?/serial)")
    await rig.until_console(machine, "LE0FT rootlogs")
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert ([d.name for d in report.disks], report.restart_required, report.held_disks) == (["root", "logs"], (), ())
    assert {d.name for d in rig.disks.read_disks(machine.uid)} == {"root", "data", "logs"}, "its file was removed"

    machine = await put_disks(rig, machine, data, disk("logs"), root)
    await until_disks(rig, machine, "root", "data", "logs")
    assert serials(rig, machine) == before
    assert rig.qemu_pids() == (qemu,)

    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    prompts = rig.console(machine).count("/ # ")
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING)
    assert serials(rig, machine) == before, "a restart has moved a disk"
    await rig.type(machine, "echo FO$((0))UND $(head -c 4 /dev/vdc)", prompts + 1)
    await rig.until_console(machine, "FO0UND kept")
    await rig.remove(machine)


async def test_a_linked_disk_is_made_and_attached_on_scsi(rig: Rig) -> None:
    first = disk("first", DiskBus.SCSI)
    machine = await rig.put(new_machine(disks=(first,), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    second = MachineDisk(
        name="second", pool="default", source=ImageDiskSource(image_uid=DISK), bus=DiskBus.SCSI, size_bytes=64 * MIB
    )
    machine = await put_disks(rig, machine, first, second)
    await until_disks(rig, machine, "first", "second")
    await rig.type(
        machine, "while ! [ -b /dev/sdb ]; do sleep 0.1; done; echo SECT$((0))ORS $(cat /sys/block/sdb/size)"
    )
    await rig.until_console(machine, f"SECT0ORS {64 * MIB // 512}")
    machine = await put_disks(rig, machine, second)
    await until_disks(rig, machine, "second")
    await rig.remove(machine)


async def test_disks_have_a_queue_for_each_vcpu(rig: Rig) -> None:
    first = (disk("root"), disk("slow", DiskBus.SCSI))
    machine = await rig.put(new_machine(disks=first, cores=2, grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    machine = await put_disks(rig, machine, *first, disk("data"))
    count = "until [ -b /dev/vdb ]; do sleep 0.1; done; for d in vda vdb sda; do ls /sys/block/$d/mq | wc -l; done"
    await rig.type(machine, f"echo QUE$((0))UES $({count})")
    await rig.until_console(machine, "QUE0UES 2 2 2")
    await rig.remove(machine)


async def test_what_cannot_be_attached_waits_for_the_next_start(rig: Rig) -> None:
    machine = await rig.put(new_machine(disks=(disk("root"),), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    machine = await put_disks(rig, machine, disk("root"), disk("slow", DiskBus.SATA), disk("small", DiskBus.SCSI))
    waiting = ("disks[slow]", "disks[small]")
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.restart_required == waiting, 20, "what waits")
    await rig.put(machine, start_token="again")
    await until_disks(rig, machine, "root", "slow", "small")
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.restart_required == (), 60, "nothing to wait for")
    await rig.remove(machine)


async def test_a_guest_that_does_not_let_go_of_a_disk_is_told_of_and_never_forced(rig: Rig) -> None:
    """A guest whose kernel does not listen to the ports' buttons holds its disks."""
    deaf = new_machine(disks=(disk("root"), disk("data")), grace_period_seconds=0)
    kernel = deaf.hardware.kernel
    assert kernel is not None
    stubborn = kernel.model_copy(update={"cmdline": f"{kernel.cmdline} pcie_ports=compat acpiphp.disable=1"})
    machine = deaf.model_copy(update={"hardware": deaf.hardware.model_copy(update={"kernel": stubborn})})
    await rig.put(machine)
    await rig.until_console(machine, "/ # ")
    machine = await put_disks(rig, machine, disk("root"))
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.held_disks == ("data",), 30, "the held disk")
    await rig.type(machine, "echo ST$((0))ILL $(cat /sys/block/vdb/serial)")
    await rig.until_console(machine, "ST0ILL data")
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert [d.name for d in report.disks] == ["root", "data"]
    machine = await rig.put(machine, start_token="again")
    await until_disks(rig, machine, "root")
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.held_disks == (), 60, "nothing held")
    await rig.remove(machine)


@pytest.mark.usefixtures("isos")
async def test_media_are_changed_unless_the_guest_has_locked_the_drive(rig: Rig) -> None:
    kernel = MachineKernel(image_uid=GENERIC_KERNEL, cmdline=CMDLINE)
    machine = await rig.put(new_machine(disks=(drive(None),), kernel=kernel, grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    (qemu,) = rig.qemu_pids()
    machine = await put_disks(rig, machine, drive("first"))
    await rig.reports.until(lambda: ISOS["first"] in rig.domain(machine).XMLDesc(), 20, "the first medium")
    mount = "until mount -o ro /dev/sr0 /mnt 2>/dev/null; do sleep 0.2; done"
    look = f"{mount}; echo ME$((0))DIUM $(cat /mnt/meta-data); umount /mnt"
    await rig.type(machine, look)
    await rig.until_console(machine, "ME0DIUM first medium")

    machine = await put_disks(rig, machine, drive("second"))
    await rig.reports.until(lambda: ISOS["second"] in rig.domain(machine).XMLDesc(), 20, "the second medium")
    await rig.type(machine, look)
    await rig.until_console(machine, "ME0DIUM second medium")

    await rig.type(machine, f"{mount}; echo LO$((0))CKED")
    await rig.until_console(machine, "LO0CKED")
    machine = await put_disks(rig, machine, drive(None))
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.held_disks == ("cd",), 30, "the locked drive")
    assert ISOS["second"] in rig.domain(machine).XMLDesc(), "the medium was torn out"
    await rig.type(machine, "umount /mnt; echo FR$((0))EED")
    await rig.until_console(machine, "FR0EED")
    await rig.reports.until(lambda: ISOS["second"] not in rig.domain(machine).XMLDesc(), 40, "the empty drive")
    await rig.reports.until(lambda: (r := rig.last(machine)) and not r.held_disks, 20, "nothing held")
    assert rig.qemu_pids() == (qemu,)
    await rig.remove(machine)


async def test_a_disk_that_cannot_be_made_leaves_the_guest_running_and_says_so(rig: Rig) -> None:
    machine = await rig.put(new_machine(disks=(disk("root"),), grace_period_seconds=0))
    await rig.until_phase(machine, Phase.RUNNING)
    damaged = rig.pool / "disks" / machine.uid / "bad.qcow2"
    damaged.write_bytes(b"no disk at all")
    machine = await put_disks(rig, machine, disk("root", mebibytes=32), disk("bad"))
    told = (Phase.RUNNING, "ActionFailed", 32 * MIB)
    await rig.reports.until(
        lambda: (r := rig.last(machine)) and (r.phase, r.reason, r.disks[0].capacity_bytes) == told, 20, "the failure"
    )
    damaged.unlink()
    await until_disks(rig, machine, "root", "bad")
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.reason == "", 20, "the recovery")
    await rig.remove(machine)
