"""Volumes are found in the kubelet's folder, made whole, and never followed out of where they are."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from small_file_system import mounted
from virtfleet_api.machine import VolumeMode, VolumeSource
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.volumes import MIB, SeenVolume
from virtfleet_node.storage.volumes import Volumes

QEMU_USER = 64055
POD = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0"
FILES = VolumeSource(claim="mail", pod_uid=POD, volume="pvc-1.mail")
DEVICE = VolumeSource(claim="mail", pod_uid=POD, volume="pvc-1.mail", mode=VolumeMode.BLOCK)


class Kubelet:
    """A kubelet's folder."""

    def __init__(self, root: Path, undo: ExitStack) -> None:
        self.root = root
        self.volumes = Volumes(root, QEMU_USER)
        self._undo = undo

    def folder(self, plugin: str = "kubernetes.io~csi", kind: str = "volumes") -> Path:
        made = self.root / "pods" / POD / kind / plugin / "pvc-1.mail"
        made.parent.mkdir(parents=True, exist_ok=True)
        return made

    def mount(self, where: Path) -> Path:
        """Mount another folder of the same file system, as a kubelet does with local volumes."""
        content = self.root / "content"
        content.mkdir()
        where.mkdir(parents=True)
        self.bind(content, where)
        return content

    def bind(self, what: Path, where: Path) -> None:
        subprocess.run(["mount", "--bind", what, where], check=True)
        self._undo.callback(subprocess.run, ["umount", "--lazy", where], check=True)


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    with ExitStack() as undo:
        yield Kubelet(tmp_path, undo)


def test_a_volume_that_no_pod_holds_is_not_there(kubelet: Kubelet) -> None:
    for source in (FILES, DEVICE, FILES.model_copy(update={"pod_uid": None, "volume": None})):
        assert kubelet.volumes.look(source) == SeenVolume()
    with pytest.raises(ConflictError, match="could not be made ready in the volume of the claim mail"):
        kubelet.volumes.make(FILES, MIB)


@pytest.mark.parametrize(
    ("plugin", "inside"), [("kubernetes.io~csi", "mount"), ("kubernetes.io~local-volume", ""), ("example.org~nfs", "")]
)
def test_the_file_is_made_once_in_the_folder_of_whichever_plugin(kubelet: Kubelet, plugin: str, inside: str) -> None:
    kubelet.folder("kubernetes.io~projected").with_name("kube-api-access").mkdir()
    where = kubelet.folder(plugin) / inside
    content = kubelet.mount(where)
    assert kubelet.volumes.look(FILES) == SeenVolume(where / "disk.img")
    kubelet.volumes.make(FILES, 5 * MIB + 512)
    assert kubelet.volumes.look(FILES) == SeenVolume(where / "disk.img", is_made=True)
    found = (content / "disk.img").stat()
    assert (found.st_size, found.st_blocks, found.st_mode & 0o7777) == (5 * MIB + 512, 0, 0o600)
    assert found.st_uid == QEMU_USER
    assert [entry.name for entry in content.iterdir()] == ["disk.img"]
    (content / "disk.img").write_bytes(b"kept")
    kubelet.volumes.make(FILES, 9 * MIB)
    assert (content / "disk.img").read_bytes() == b"kept"


def test_a_file_of_somebody_elses_is_given_to_qemu_as_it_is(kubelet: Kubelet) -> None:
    where = kubelet.folder() / "mount"
    file = kubelet.mount(where) / "disk.img"
    file.write_bytes(b"kept")
    for closed in kubelet.folder().parents[:4]:
        closed.chmod(0o750)
    assert kubelet.volumes.look(FILES) == SeenVolume(where / "disk.img", is_made=False)
    kubelet.volumes.make(FILES, 9 * MIB)
    assert kubelet.volumes.look(FILES) == SeenVolume(where / "disk.img", is_made=True)
    assert (file.read_bytes(), file.stat().st_uid) == (b"kept", QEMU_USER)
    asked = ["setpriv", f"--reuid={QEMU_USER}", f"--regid={QEMU_USER}", "--clear-groups"]
    reached = subprocess.run([*asked, "ls", kubelet.folder()], capture_output=True, check=False)
    assert reached.returncode != 0, "the kubelet's folders are there for passing through alone"


def test_nothing_is_made_where_nothing_is_mounted(kubelet: Kubelet) -> None:
    """After a reboot the folders are there, and the kubelet mounts the volumes only then."""
    (kubelet.folder() / "mount").mkdir(parents=True)
    assert kubelet.volumes.look(FILES) == SeenVolume()
    with pytest.raises(ConflictError):
        kubelet.volumes.make(FILES, MIB)
    assert list((kubelet.folder() / "mount").iterdir()) == []


@pytest.mark.parametrize("wanted", [None, 1 << 40])
def test_the_file_fits_into_what_is_free(kubelet: Kubelet, wanted: int | None) -> None:
    with mounted(kubelet.folder() / "mount", 64) as where:
        space = os.statvfs(where)
        free = space.f_bavail * space.f_frsize
        kubelet.volumes.make(FILES, wanted)
        size = (where / "disk.img").stat().st_size
        assert size == free * 945 // 1000 // MIB * MIB
        with (where / "disk.img").open("r+b") as file:
            for _ in range(size // MIB):
                file.write(b"x" * MIB)  # all that a guest can write
            os.fsync(file.fileno())


def test_a_full_volume_says_so(kubelet: Kubelet) -> None:
    with mounted(kubelet.folder() / "mount", 8) as where:
        space = os.statvfs(where)
        (where / "other").write_bytes(b"x" * (space.f_bavail * space.f_frsize - MIB // 2))
        with pytest.raises(ConflictError, match=r"The volume of the claim mail has no room for disk\.img"):
            kubelet.volumes.make(FILES, MIB)
        assert not (where / "disk.img").exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("names", "2 names"),
        ("pipe", "no regular file"),
        ("folder", "no regular file"),
        ("device", "no regular file"),
    ],
)
def test_hostile_content_is_refused_and_left_as_it_is(kubelet: Kubelet, kind: str, said: str) -> None:
    content = kubelet.mount(kubelet.folder() / "mount")
    secret = kubelet.root / "secret"
    secret.write_text("secret")
    file = content / "disk.img"
    match kind:
        case "link":
            file.symlink_to(secret)
        case "dangling":
            file.symlink_to(kubelet.root / "nowhere")
        case "names":
            file.hardlink_to(secret)
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "device":
            os.mknod(file, 0o600 | 0o060000, os.makedev(7, 0))
    before, owner = file.lstat(), secret.stat().st_uid
    seen = kubelet.volumes.look(FILES)
    assert not seen.is_usable
    assert said in seen.problem
    assert "disk.img in the volume of the claim mail" in seen.problem
    with pytest.raises(ConflictError, match=said):
        kubelet.volumes.make(FILES, MIB)
    assert (file.lstat().st_ino, file.lstat().st_mtime, secret.read_text()) == (
        before.st_ino,
        before.st_mtime,
        "secret",
    )
    assert not (kubelet.root / "nowhere").exists()
    assert secret.stat().st_uid == file.lstat().st_uid == owner


@pytest.mark.parametrize("kind", ["link", "names", "pipe"])
def test_hostile_work_in_progress_is_never_written_to(kubelet: Kubelet, kind: str) -> None:
    content = kubelet.mount(kubelet.folder() / "mount")
    secret = kubelet.root / "secret"
    secret.write_text("secret")
    partial = content / "disk.img.partial"
    match kind:
        case "link":
            partial.symlink_to(secret)
        case "names":
            partial.hardlink_to(secret)
        case "pipe":
            os.mkfifo(partial)
    kubelet.volumes.make(FILES, MIB)
    assert secret.read_text() == "secret"
    assert not kubelet.volumes.look(FILES).problem
    partial.mkdir()
    (content / "disk.img").unlink()
    with pytest.raises(ConflictError, match=r"disk\.img could not be made"):
        kubelet.volumes.make(FILES, MIB)


@pytest.mark.parametrize("where", ["mount", "volume", "plugin"])
def test_folders_that_lead_elsewhere_are_not_followed(kubelet: Kubelet, where: str) -> None:
    content = kubelet.mount(kubelet.root / "elsewhere" / "pvc-1.mail" / "mount")
    (content / "disk.img").write_bytes(b"secret")
    match where:
        case "mount":
            kubelet.folder().mkdir()
            (kubelet.folder() / "mount").symlink_to(kubelet.root / "elsewhere" / "pvc-1.mail" / "mount")
        case "volume":
            kubelet.folder().symlink_to(kubelet.root / "elsewhere" / "pvc-1.mail")
        case "plugin":
            plugin = kubelet.folder().parent
            plugin.rmdir()
            plugin.symlink_to(kubelet.root / "elsewhere")
    assert kubelet.volumes.look(FILES) == SeenVolume()


def test_a_device_is_found_by_what_the_kubelet_has_mounted(kubelet: Kubelet) -> None:
    link = kubelet.folder(kind="volumeDevices")
    link.symlink_to("/dev/not-seen-here")
    mapped = kubelet.root / "plugins" / "kubernetes.io~local-volume" / "volumeDevices" / "pvc-1.mail" / POD
    mapped.parent.mkdir(parents=True)
    mapped.touch()  # as it is before the device is mounted there
    assert kubelet.volumes.look(DEVICE) == SeenVolume()
    kubelet.bind(Path("/dev/loop0"), mapped)
    assert kubelet.volumes.look(DEVICE) == SeenVolume(Path("/dev/loop0"), is_made=True)
    link.unlink()
    assert kubelet.volumes.look(DEVICE) == SeenVolume(), "the pod has no such volume"


def test_a_maker_that_is_killed_leaves_a_whole_file_or_none(kubelet: Kubelet) -> None:
    content = kubelet.mount(kubelet.folder() / "mount")
    victim = (
        "import sys; from pathlib import Path; from virtfleet_api.machine import VolumeSource\n"
        "from virtfleet_node.storage.volumes import Volumes\n"
        f"source = VolumeSource(claim='mail', pod_uid='{POD}', volume='pvc-1.mail')\n"
        "file = Path(sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    file.unlink(missing_ok=True)\n"
        f"    Volumes(Path(sys.argv[1])).make(source, {4 * MIB})\n"
    )
    file = content / "disk.img"
    for attempt in range(8):
        program = [sys.executable, "-c", victim, kubelet.root, file]
        with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.003 * attempt)
            process.send_signal(signal.SIGKILL)
        assert not file.exists() or file.stat().st_size == 4 * MIB
        kubelet.volumes.make(FILES, 4 * MIB)
        assert kubelet.volumes.look(FILES).is_usable
        assert [entry.name for entry in content.iterdir()] == ["disk.img"]
