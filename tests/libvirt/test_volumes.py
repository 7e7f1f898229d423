"""Volumes of Kubernetes' as disks of real guests, in a folder that is laid out as a kubelet's."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lxml import etree

from machine_rig import Rig, new_machine
from virtfleet_api.machine import BlankSource, DiskCopySource, Machine, MachineDisk, Run, VolumeMode, VolumeSource
from virtfleet_api.report import Phase
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_api.vm_snapshot import SnapshotMode, SnapshotPhase
from virtfleet_node.core.errors import InvalidError

MIB = 1 << 20


class Kubelet:
    """Mounts volumes for pods as a kubelet does, in the daemon's mounts and in the node's."""

    def __init__(self, rig: Rig) -> None:
        self._node = rig.node
        self._undo = ExitStack()

    def folder(self, source: VolumeSource) -> Path:
        """Return where the kubelet has a volume."""
        kind = "volumeDevices" if source.mode is VolumeMode.BLOCK else "volumes"
        pods = self._node.directory / "kubelet" / "pods"
        assert source.pod_uid
        assert source.volume
        return pods / source.pod_uid / kind / "kubernetes.io~csi" / source.volume

    def mount(self, source: VolumeSource) -> Path:
        """Mount the file system of a claim; return it."""
        content = self._node.directory / "claims" / source.claim
        content.mkdir(parents=True, exist_ok=True)
        where = self.folder(source) / "mount"
        for folder in reversed([where, *where.parents]):
            if not folder.exists():
                folder.mkdir(mode=0o750)  # as kubelets do
        self._mount(content, where)
        return content

    def map(self, source: VolumeSource, mebibytes: int) -> Path:
        """Mount a new device in the folder of its plugin, and link for the pod to what is not seen; return it."""
        file = self._node.directory / f"{source.claim}.img"
        with file.open("wb") as made:
            made.truncate(mebibytes * MIB)
        device = _run("losetup", "--show", "--find", file).strip()
        self._undo.callback(_run, "losetup", "--detach", device)
        plugin = self._node.directory / "kubelet" / "plugins" / "kubernetes.io" / "csi" / "volumeDevices"
        mapped = plugin / str(source.volume) / "dev" / str(source.pod_uid)
        mapped.parent.mkdir(parents=True, exist_ok=True)
        link = self.folder(source)
        link.parent.mkdir(parents=True)
        mapped.touch()
        link.symlink_to("/dev/not-seen-here")
        self._mount(Path(device), mapped)
        return Path(device)

    def close(self) -> None:
        """Undo everything."""
        self._undo.close()

    def _mount(self, what: Path, where: Path) -> None:
        for command in ([], self._node.command()):
            _run(*command, "mount", "--bind", what, where)
            self._undo.callback(_run, *command, "umount", "--lazy", where)


def _run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def kubelet(rig: Rig) -> Iterator[Kubelet]:
    made = Kubelet(rig)
    yield made
    made.close()


def volume(name: str, mode: VolumeMode = VolumeMode.FILESYSTEM, mebibytes: int = 16) -> MachineDisk:
    """Return a disk that is the volume of a claim, held by a pod."""
    source = VolumeSource(claim=f"{name}-claim", mode=mode, pod_uid=str(uuid.uuid4()), volume=f"pvc-{name}")
    return MachineDisk(name=name, pool="default", source=source, size_bytes=mebibytes * MIB)


def source_of(disk: MachineDisk) -> VolumeSource:
    assert isinstance(disk.source, VolumeSource)
    return disk.source


def held_by_another_pod(disk: MachineDisk) -> MachineDisk:
    return disk.model_copy(update={"source": source_of(disk).model_copy(update={"pod_uid": str(uuid.uuid4())})})


async def put_disks(rig: Rig, machine: Machine, *disks: MachineDisk, **change: object) -> Machine:
    return await rig.put(machine, hardware=machine.hardware.model_copy(update={"disks": disks}), **change)


def sources(rig: Rig, machine: Machine) -> dict[str, str]:
    """Return the files and devices of the disks that libvirt shows, by serial."""
    xml = etree.fromstring(rig.domain(machine).XMLDesc())
    disks = xml.findall("devices/disk[@device='disk']")
    return {d.findtext("serial", ""): d.find("source").get("file") or d.find("source").get("dev") for d in disks}


async def until_waiting(rig: Rig, machine: Machine, phase: Phase, claim: str) -> None:
    def waits() -> bool:
        told = rig.last(machine)
        return told is not None and (told.phase, told.reason) == (phase, "VolumeMissing") and claim in told.message

    await rig.reports.until(waits, 20, "a word of the missing volume")


async def test_a_volume_is_waited_for_and_used_as_another_pod_has_it_from_the_next_start_on(
    rig: Rig, kubelet: Kubelet
) -> None:
    data = volume("data")
    machine = await rig.put(new_machine(disks=(data,), grace_period_seconds=0))
    await until_waiting(rig, machine, Phase.PROVISIONING, "data-claim")
    content = kubelet.mount(source_of(data))
    await rig.type(
        machine, "echo kept | dd of=/dev/vda conv=fsync 2>/dev/null; echo WRIT$((0))TEN $(cat /sys/block/vda/size)"
    )
    await rig.until_console(machine, f"WRIT0TEN {16 * MIB // 512}")
    assert [entry.name for entry in content.iterdir()] == ["disk.img"]
    file = (content / "disk.img").stat()
    way = kubelet.folder(source_of(data))
    assert {folder.stat().st_mode & 0o777 for folder in (way, *way.parents[:4])} == {0o751}
    assert (way / "mount").stat().st_mode & 0o777 == content.stat().st_mode & 0o777 == 0o755
    assert ((content / "disk.img").read_bytes()[:4], file.st_size, file.st_mode & 0o777) == (b"kept", 16 * MIB, 0o600)
    assert rig.disks.read_disks(machine.uid) == ()

    before, (qemu,) = sources(rig, machine), rig.qemu_pids()
    data = held_by_another_pod(data).model_copy(update={"size_bytes": 32 * MIB})
    machine = await put_disks(rig, machine, data)
    await rig.restart_daemon()
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.phase is Phase.RUNNING, 20, "the guest to be seen")
    assert (rig.last(machine).reason, rig.last(machine).restart_required) == ("", ())
    assert (sources(rig, machine), rig.qemu_pids()) == (before, (qemu,))

    kubelet.mount(source_of(data))
    prompts = rig.console(machine).count("/ # ")
    machine = await rig.put(machine, start_token="again")
    await rig.type(machine, "echo FO$((0))UND $(head -c 4 /dev/vda) $(cat /sys/block/vda/size)", prompts + 1)
    await rig.until_console(machine, f"FO0UND kept {16 * MIB // 512}")
    assert sources(rig, machine) == {"data": str(kubelet.folder(source_of(data)) / "mount" / "disk.img")}
    await rig.remove(machine)
    assert (content / "disk.img").read_bytes()[:4] == b"kept", "the volume was touched"


async def test_snapshots_leave_volumes_out_and_copies_of_them_are_refused(rig: Rig, kubelet: Kubelet) -> None:
    root = MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=16 * MIB)
    files = volume("files")
    kubelet.mount(source_of(files))
    machine = await rig.put(new_machine(disks=(root, files), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    wanted = MachineSnapshot(uid=str(uuid.uuid4()), namespace="default", name="one", machine_uid=machine.uid)
    with pytest.raises(InvalidError, match=r"The memory cannot be captured with volumes of claims \(files\)"):
        await rig.daemon.put_snapshot(wanted)
    before = sources(rig, machine)
    await rig.daemon.put_snapshot(wanted.model_copy(update={"mode": SnapshotMode.DISK}))
    await rig.reports.until(lambda: rig.reports.snapshots[wanted.uid].phase is SnapshotPhase.READY, 30, "the snapshot")
    assert [disk.name for disk in rig.reports.snapshots[wanted.uid].disks] == ["root"]
    after = sources(rig, machine)
    assert (after["files"] == before["files"], after["root"] == before["root"]) == (True, False)

    named = DiskCopySource(machine_uid=machine.uid, pool="default", name="files")
    copy = await rig.put(new_machine(disks=(MachineDisk(name="copy", pool="default", source=named),)))
    said = "Disk files is the volume of a claim, which is not copied"
    await rig.reports.until(lambda: (r := rig.last(copy)) and said in r.message, 20, "the copy to be refused")
    await rig.remove(copy)
    await rig.remove(machine)


async def test_volumes_come_and_go_under_a_running_guest(rig: Rig, kubelet: Kubelet) -> None:
    root = MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=16 * MIB)
    files, device = volume("files"), volume("device", VolumeMode.BLOCK)
    machine = await rig.put(new_machine(disks=(root,), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    machine = await put_disks(rig, machine, root, files, device)
    await until_waiting(rig, machine, Phase.RUNNING, "files-claim")
    content = kubelet.mount(source_of(files))
    await rig.reports.until(lambda: set(sources(rig, machine)) == {"root", "files"}, 30, "the first volume")
    await until_waiting(rig, machine, Phase.RUNNING, "device-claim")
    block = kubelet.map(source_of(device), 24)
    wait = "until [ -b /dev/vdc ]; do sleep 0.1; done"
    await rig.type(machine, f"{wait}; for d in vdb vdc; do echo kept | dd of=/dev/$d conv=fsync 2>/dev/null; done")
    await rig.type(machine, "echo WRIT$((0))TEN $(cat /sys/block/vd[bc]/size)", 2)
    await rig.until_console(machine, f"WRIT0TEN {16 * MIB // 512} {24 * MIB // 512}")
    assert (content / "disk.img").read_bytes()[:4] == block.read_bytes()[:4] == b"kept"
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert (report.reason, report.restart_required) == ("", ())

    machine = await put_disks(rig, machine, root)
    await rig.reports.until(lambda: set(sources(rig, machine)) == {"root"}, 30, "the volumes to go")
    assert {disk.name for disk in rig.disks.read_disks(machine.uid)} == {"root"}
    machine = await put_disks(rig, machine, root, files, device, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    prompts = rig.console(machine).count("/ # ")
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.type(machine, "echo FO$((0))UND $(head -c 4 /dev/vdb) $(head -c 4 /dev/vdc)", prompts + 1)
    await rig.until_console(machine, "FO0UND kept kept")
    await rig.remove(machine)
