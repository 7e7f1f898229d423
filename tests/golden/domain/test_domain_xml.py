import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from virtfleet_api.device import GpuMode
from virtfleet_api.display import DisplayModel
from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import (
    BlankSource,
    CpuScheduling,
    EmptySource,
    Hardware,
    ImageDiskSource,
    InterfaceLimit,
    IoLimits,
    IsoSource,
    Machine,
    MachineDevice,
    MachineDisk,
    MachineInterface,
    MachineKernel,
    Run,
    VolumeMode,
    VolumeSource,
)
from virtfleet_api.network import LinkState, NicModel
from virtfleet_api.virtual_machine import DiskBus, DiskCache
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.desired.domain import build_domain_xml, build_placeholder_xml
from virtfleet_node.core.desired.guest import DomainType, FileLayer, Guest, HostFacts, ResolvedDisk, ResolvedPaths
from virtfleet_node.core.host_cpu import HostCpu
from virtfleet_node.core.numa.choose import choose_cells
from virtfleet_node.core.numa.host import Cell, Host, Pages, build_wish
from virtfleet_node.core.numa.pins import build_guest_cells, build_pinning
from virtfleet_node.core.numa.placement import Placement
from virtfleet_node.core.places import Places, assign
from virtfleet_node.core.record import new_stored

TWO_CELLS = Host(
    tuple(Cell(number, frozenset(range(4 * number, 4 * number + 4)), 8 << 30, 8 << 30) for number in (0, 1))
)
UID = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0"
IMAGE = "aaaaaaaa-0000-4000-8000-000000000000"
PORT = "bbbbbbbb-0000-4000-8000-000000000000"
POOL = Path("/pools/default")
HERE = Path(__file__).parent


def disk(name: str, bus: DiskBus = DiskBus.VIRTIO, **more: object) -> MachineDisk:
    return MachineDisk(name=name, pool="default", source=BlankSource(), size_bytes=1 << 30, bus=bus, **more)


def image_disk(name: str, **more: object) -> MachineDisk:
    return MachineDisk(name=name, pool="default", source=ImageDiskSource(image_uid=IMAGE), **more)


def volume(name: str, mode: VolumeMode, bus: DiskBus = DiskBus.VIRTIO, **more: object) -> MachineDisk:
    source = VolumeSource(claim=f"{name}.claim", mode=mode, pod_uid=PORT, volume=f"pvc-{name}")
    return MachineDisk(name=name, pool="default", source=source, bus=bus, **more)


CHOSEN = {
    device.name: device
    for device in (
        ChosenDevice(name="gpu", address="0000:81:00.0", companions=("0000:81:00.1",)),
        ChosenDevice(name="nic", address="0001:04:10.2"),
        ChosenDevice(name="part", mode=GpuMode.MEDIATED, address="0000:82:00.0", mediated_uuid=IMAGE),
    )
}

CASES = {
    "minimal": Hardware(memory_bytes=128 << 20, guest_agent=False),
    "kernel": Hardware(
        memory_bytes=128 << 20,
        kernel=MachineKernel(image_uid=IMAGE, cmdline='console=ttyS0 quoted="<&>\'"'),
    ),
    "typical": Hardware(
        memory_bytes=2 << 30,
        sockets=1,
        cores=2,
        disks=(image_disk("root"), disk("data", cache=DiskCache.WRITEBACK)),
        interfaces=(MachineInterface(name="eth0", mac="52:54:00:00:00:01"),),
        cloud_init_digest="a" * 64,
    ),
    "buses": Hardware(
        memory_bytes=1 << 30,
        disks=(
            disk("one", DiskBus.SCSI),
            disk("two", DiskBus.SATA, boot_order=2),
            disk("three", boot_order=1),
            disk("a-name-longer-than-twenty-letters", DiskBus.SCSI, cache=DiskCache.WRITETHROUGH),
        ),
        interfaces=(
            MachineInterface(name="eth0", mac="52:54:00:00:00:01", model=NicModel.E1000E),
            MachineInterface(name="eth1", mac="52:54:00:00:00:02"),
        ),
        cloud_init_digest="a" * 64,
    ),
    "limits": Hardware(
        memory_bytes=1 << 30,
        disks=(
            disk("root", limits=IoLimits(read_iops=100, write_iops=50, total_bytes_per_second=50 << 20)),
            disk(
                "bursts",
                limits=IoLimits(
                    total_iops=500, total_iops_burst=900, burst_seconds=7, total_bytes_per_second_burst=0, group="slow"
                ),
            ),
        ),
    ),
    "volumes": Hardware(
        memory_bytes=1 << 30,
        cores=2,
        disks=(
            disk("root"),
            volume("files", VolumeMode.FILESYSTEM, size_bytes=1 << 30, boot_order=1),
            volume("device", VolumeMode.BLOCK, limits=IoLimits(total_iops=100)),
            volume("files-on-scsi", VolumeMode.FILESYSTEM, DiskBus.SCSI),
            volume("device-on-sata", VolumeMode.BLOCK, DiskBus.SATA),
        ),
    ),
    "drives": Hardware(
        memory_bytes=1 << 30,
        disks=(
            disk("root"),
            MachineDisk(name="installer", pool="default", source=IsoSource(image_uid=IMAGE), bus=DiskBus.CDROM),
            MachineDisk(name="empty", pool="default", source=EmptySource(), bus=DiskBus.CDROM),
        ),
        cloud_init_digest="a" * 64,
    ),
    "switch": Hardware(
        memory_bytes=1 << 30,
        cores=12,
        interfaces=(
            MachineInterface(name="eth0", mac="52:54:00:00:00:01", port=PORT, mtu=1442, state=LinkState.DOWN),
            MachineInterface(
                name="eth1",
                mac="52:54:00:00:00:02",
                model=NicModel.E1000E,
                port=PORT,
                inbound=InterfaceLimit(bits_per_second=20_000_000, burst_bytes=250_000),
            ),
        ),
    ),
    "devices": Hardware(
        memory_bytes=1 << 30,
        disks=(disk("root"),),
        devices=(
            MachineDevice(name="gpu"),
            MachineDevice(name="nic"),
            MachineDevice(name="part", mode=GpuMode.MEDIATED),
            MachineDevice(name="screen", mode=GpuMode.VIRGL),
        ),
    ),
    "devices-i440fx": Hardware(memory_bytes=1 << 30, machine_type="i440fx", devices=(MachineDevice(name="gpu"),)),
    "display": Hardware(memory_bytes=1 << 30, disks=(disk("root"),), display=DisplayModel.VGA),
    "display-drawn": Hardware(
        memory_bytes=1 << 30,
        display=DisplayModel.VGA,
        devices=(MachineDevice(name="screen", mode=GpuMode.VIRGL),),
    ),
    "display-i440fx": Hardware(memory_bytes=1 << 30, machine_type="i440fx", display=DisplayModel.VIRTIO),
    "cpu": Hardware(memory_bytes=1 << 30, sockets=2, cores=3, threads=2, cpu_model="Skylake-Server"),
    "cpu-limited": Hardware(
        memory_bytes=1 << 30,
        cores=2,
        scheduling=CpuScheduling(limit_hz=3_000_000_000, reservation_hz=700_000_000, shares=500),
    ),
    "ceilings": Hardware(
        memory_bytes=1 << 30,
        max_memory_bytes=(2 << 30) + 1,
        sockets=2,
        cores=1,
        max_vcpus=8,
        disks=(disk("root"), disk("data", DiskBus.SCSI)),
        interfaces=(MachineInterface(name="eth0", mac="52:54:00:00:00:01", port=PORT),),
    ),
    "i440fx": Hardware(memory_bytes=1 << 30, machine_type="i440fx", disks=(disk("root"),)),
    "numa": Hardware(memory_bytes=1 << 30, cores=2),
    "numa-wide": Hardware(memory_bytes=3 << 30, cores=5, hugepage_bytes=2 << 20),
    "numa-pinned": Hardware(memory_bytes=1 << 30, cores=3, affinity={0: "1", 2: "3-4"}),
    "numa-dedicated": Hardware(memory_bytes=1 << 30, cores=2, dedicated_cpus=True, hugepage_bytes=1 << 30),
    "versioned": Hardware(memory_bytes=1 << 30, machine_type="q35-7.2", cpu_model="host-passthrough"),
}


def with_cells(made: Guest) -> Guest:
    """Return the guest as it is started on a host with two cells."""
    pages = {size: Pages(1024, 1024) for size in (2 << 20, 1 << 30)}
    host = Host(tuple(replace(cell, memory_bytes=4 << 40, hugepages=pages) for cell in TWO_CELLS.cells))
    wish = build_wish(made.hardware)
    placement = choose_cells(wish, host)
    assert isinstance(placement, Placement)
    pinning = build_pinning(wish, placement, host)
    return replace(made, pinning=pinning, cells=build_guest_cells(wish, placement))


def guest(hardware: Hardware, domain_type: DomainType) -> Guest:
    machine = Machine(uid=UID, namespace="shop", name="web.one", run=Run.RUNNING, hardware=hardware)
    base = FileLayer(POOL / "images" / IMAGE / "disk.qcow2", ImageFormat.QCOW2)
    disks = {
        d.name: ResolvedDisk(
            FileLayer(POOL / "disks" / UID / f"{d.name}.qcow2", ImageFormat.QCOW2),
            (base,) if isinstance(d.source, ImageDiskSource) else (),
        )
        for d in hardware.own_disks
    }
    for d in hardware.volumes:
        is_device = isinstance(d.source, VolumeSource) and d.source.mode is VolumeMode.BLOCK
        path = Path("/kubelet") / (f"published/{d.name}" if is_device else f"{d.name}/mount/disk.img")
        disks[d.name] = ResolvedDisk(FileLayer(path, ImageFormat.RAW), is_device=is_device)
    kernel = POOL / "images" / IMAGE
    paths = ResolvedPaths(
        console_log=Path("/state/machines") / UID / "console.log",
        disks=disks,
        media={d.name: POOL / "images" / uid / "disk" for d in hardware.drives if (uid := d.medium_uid)},
        kernel=kernel / "kernel" if hardware.kernel else None,
        initrd=kernel / "initrd" if hardware.kernel else None,
        cloud_init=Path("/state/machines") / UID / "cloud-init.iso" if hardware.cloud_init_digest else None,
    )
    emulator = None if domain_type is DomainType.TEST else "/usr/bin/qemu-system-x86_64"
    facts = HostFacts(domain_type, emulator, cpu=HostCpu(2_800_000_000, 8), render_node="/dev/dri/renderD128")
    if hardware.volumes:
        facts = replace(facts, qemu_user=64055)
    given = tuple(CHOSEN[device.name] for device in hardware.devices if device.name in CHOSEN)
    return Guest(machine, facts, paths, assign(Places(), hardware), devices=given)


@pytest.mark.parametrize("domain_type", DomainType)
@pytest.mark.parametrize("name", CASES)
def test_domain(name: str, domain_type: DomainType, golden: Callable[[Path, str], None]) -> None:
    made = guest(CASES[name], domain_type)
    if name.startswith("numa"):
        made = with_cells(made)
    xml = build_domain_xml(made, new_stored(made.machine))
    # The document in the metadata has its own tests; here it would bury the devices.
    text = re.sub(r"  <metadata>.*</metadata>\n", "", xml, flags=re.DOTALL)
    golden(HERE / f"{name}.{domain_type}.xml", text)


@pytest.mark.parametrize("name", CASES)
def test_every_text_survives_as_it_is(name: str) -> None:
    made = guest(CASES[name], DomainType.QEMU)
    tree = etree.fromstring(build_domain_xml(made, new_stored(made.machine)))
    assert tree.findtext("title") == "shop/web.one"
    if made.hardware.kernel:
        assert tree.findtext("os/cmdline") == made.hardware.kernel.cmdline


@pytest.mark.parametrize("user_space", [True, False])
def test_what_open_vswitch_cannot_carry_in_user_space_is_turned_off(*, user_space: bool) -> None:
    made = replace(guest(CASES["switch"], DomainType.KVM), user_space_switch=user_space)
    tree = etree.fromstring(build_domain_xml(made, new_stored(made.machine)))
    drivers = [card.find("driver") for card in tree.findall("devices/interface")]
    assert drivers[0].get("queues") == "8"
    assert (drivers[0].find("host[@csum='off']") is not None) is user_space
    assert drivers[1] is None, "libvirt takes these for virtio alone"


def test_placeholder(golden: Callable[[Path, str], None]) -> None:
    made = guest(CASES["minimal"], DomainType.QEMU)
    golden(HERE / "placeholder.xml", build_placeholder_xml(new_stored(made.machine), DomainType.QEMU) + "\n")
