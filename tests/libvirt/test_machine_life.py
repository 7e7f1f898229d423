"""A machine's life on a real hypervisor, as its document asks for it."""

import asyncio

import libvirt
import pytest

from machine_rig import DISK, Rig, cloud_init, new_machine
from virtfleet_api.machine import BlankSource, ImageDiskSource, MachineDisk, MachineInterface, Run
from virtfleet_api.report import Phase, StopReason
from virtfleet_api.virtual_machine import DiskCache, ReclaimPolicy


async def test_a_machine_is_created_runs_and_leaves_nothing(rig: Rig) -> None:
    files = cloud_init("echo hello from $(hostname)")
    machine = new_machine(
        cloud_init=files,
        cloud_init_digest=files.digest(),
        disks=(
            MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=DISK)),
            MachineDisk(name="data", pool="default", source=BlankSource(), size_bytes=1 << 26),
        ),
        interfaces=(MachineInterface(name="eth0", mac="52:54:00:aa:bb:cc"),),
    )
    await rig.put(machine)
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert [(d.name, d.target, d.backing_image_uid) for d in report.disks] == [
        ("root", "vda", DISK),
        ("data", "vdb", None),
    ]
    assert report.machine_type.startswith("pc-q35")
    await rig.until_console(machine, "READY host=hugo")
    await rig.until_console(machine, "USERDATA hello from hugo")
    await rig.until_agent(machine)
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.interfaces[0].ip_addresses, 30, "an address")
    assert files.user_data not in rig.domain(machine).XMLDesc()

    await rig.put(machine, run=Run.ABSENT)
    await rig.until_phase(machine, Phase.ABSENT)
    with pytest.raises(libvirt.libvirtError):
        rig.domain(machine)
    assert rig.disks.read_disks(machine.uid) == ()
    assert not (rig.state / "machines" / machine.uid).exists()
    assert machine.uid not in {report.uid for report in rig.daemon.list_machines()}


async def test_boots_from_its_disk_without_a_kernel(rig: Rig) -> None:
    machine = new_machine(
        kernel=None, disks=(MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=DISK)),)
    )
    await rig.put(machine)
    await rig.until_console(machine, "READY")
    await rig.remove(machine)


async def test_pause_and_resume(rig: Rig) -> None:
    machine = new_machine(run=Run.PAUSED)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.PAUSED)
    assert rig.domain(machine).state()[0] == libvirt.VIR_DOMAIN_PAUSED
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING)
    machine = await rig.put(machine, run=Run.PAUSED)
    await rig.until_phase(machine, Phase.PAUSED)
    await rig.remove(machine)


async def test_stop_by_the_power_button_then_start(rig: Rig) -> None:
    machine = new_machine()
    await rig.put(machine)
    await rig.until_console(machine, "READY")
    machine = await rig.put(machine, run=Run.STOPPED)
    report = await rig.until_phase(machine, Phase.STOPPED)
    assert report.last_stop is StopReason.REQUESTED
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.remove(machine)


async def test_a_guest_that_listens_to_its_agent_alone_is_stopped_by_it(rig: Rig) -> None:
    machine = new_machine(grace_period_seconds=60)
    await rig.put(machine)
    await rig.until_agent(machine)
    await rig.until_console(machine, "READY")
    await rig.type(machine, "killall head; echo dea''f")
    await rig.until_console(machine, "deaf")
    await rig.put(machine, run=Run.STOPPED)
    report = await rig.until_phase(machine, Phase.STOPPED, seconds=40)
    assert report.last_stop is StopReason.REQUESTED
    await rig.put(machine, run=Run.ABSENT)
    await rig.until_phase(machine, Phase.ABSENT)


async def test_a_deaf_guest_is_switched_off_after_its_grace_period(rig: Rig) -> None:
    machine = new_machine(grace_period_seconds=4, guest_agent=False, kernel=None)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    began = asyncio.get_running_loop().time()
    await rig.put(machine, run=Run.STOPPED)
    report = await rig.until_phase(machine, Phase.STOPPED)
    assert 4 <= asyncio.get_running_loop().time() - began < 20
    assert report.last_stop is StopReason.REQUESTED
    await rig.put(machine, run=Run.ABSENT)
    await rig.until_phase(machine, Phase.ABSENT)


async def test_a_new_token_restarts_once_with_the_new_hardware(rig: Rig) -> None:
    disk = MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=1 << 26)
    machine = new_machine(disks=(disk,))
    await rig.put(machine)
    await rig.until_console(machine, "READY")
    cached = disk.model_copy(update={"cache": DiskCache.WRITEBACK})
    hardware = machine.hardware.model_copy(update={"cores": 2, "disks": (cached,)})
    machine = await rig.put(machine, hardware=hardware)
    report = rig.last(machine)
    assert report is not None
    assert report.restart_required == ("cpu.cores (2 vCPUs, and the running guest can have 1)", "disks[root].cache")
    assert report.vcpus == 1
    machine = await rig.put(machine, start_token="again")
    await rig.until_console(machine, "cpus=2")
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert (report.restart_required, report.vcpus, report.restarts) == ((), 2, 0)
    await rig.remove(machine)


async def test_reclaim_policies(rig: Rig) -> None:
    machine = new_machine(
        disks=(
            MachineDisk(name="mine", pool="default", source=BlankSource(), size_bytes=1 << 26),
            MachineDisk(
                name="kept",
                pool="default",
                source=BlankSource(),
                size_bytes=1 << 26,
                reclaim_policy=ReclaimPolicy.RETAIN,
            ),
            MachineDisk(name="former", pool="default", source=BlankSource(), size_bytes=1 << 26),
        )
    )
    await rig.put(machine, run=Run.PAUSED)
    await rig.until_phase(machine, Phase.PAUSED)
    fewer = machine.hardware.model_copy(update={"disks": machine.hardware.disks[:2]})
    machine = await rig.put(machine, hardware=fewer, run=Run.PAUSED)
    assert len(rig.disks.read_disks(machine.uid)) == 3
    report = await rig.remove(machine)
    assert [(disk.pool, disk.name) for disk in report.kept_disks] == [("default", "kept")]
    assert [disk.name for disk in rig.disks.read_disks(machine.uid)] == ["kept"]
    rig.disks.remove_disk(machine.uid, "default", "kept")
