"""Volumes of Kubernetes' in the kubelet's folder, where it has attached and mounted them for a pod.

What is in a volume is not to be trusted: whoever else may write into it can have put anything there at any time. So
nothing in it is followed, and nothing is made in a folder on which no volume is mounted, as it is after a reboot.

QEMU opens a file by its path, and is no root: the kubelet's folders on the way to it are opened for passing through,
and the file is given to QEMU's user here. libvirt, which is root, would give it whatever has the file's name by then.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from virtfleet_api.machine import VolumeSource
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.volumes import MIB, SeenVolume, file_size, is_block
from virtfleet_node.storage.files import PARTIAL
from virtfleet_node.storage.mapped_devices import mapped_device

FILE: Final = "disk.img"
"""The disk in a volume with a file system."""

_CSI: Final = "kubernetes.io~csi"
"""The plugin that keeps files of its own beside the folder on which it mounts a volume."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Volumes:
    """The volumes that the kubelet holds for pods of this node."""

    def __init__(self, kubelet: Path, qemu_user: int | None = None) -> None:
        """Take the kubelet's folder, as it is seen from here, and the user that files are given to, if any."""
        self._pods, self._plugins = kubelet / "pods", kubelet / "plugins"
        self._qemu_user = qemu_user

    def look(self, source: VolumeSource) -> SeenVolume:
        """Look for a volume. Blocks, for as long as its file system does."""
        try:
            if is_block(source):
                return self._look_for_device(source)
            with self._opened(source) as (folder, path):
                return self._look_in(folder, path, source)
        except OSError:
            return SeenVolume()  # it is not there yet, or not any more

    def make(self, source: VolumeSource, size_bytes: int | None) -> None:
        """Make the file in a volume unless it is there, and let QEMU reach it; it appears whole or not at all.

        Raises:
            ConflictError: the volume is not there, or cannot take the file.
        """
        try:
            with self._opened(source) as (folder, path):
                for closed in filter(_is_closed, self._way(path)):
                    closed.chmod(stat.S_IMODE(closed.stat().st_mode) | stat.S_IXOTH)
                if _stat(folder) is None:
                    _make(folder, source, size_bytes)
                if self._qemu_user is not None:
                    _give(folder, source, self._qemu_user)
        except OSError as error:
            raise ConflictError(
                f"{FILE} could not be made ready in the volume of the claim {source.claim}: {error.strerror}."
            ) from None

    def _look_for_device(self, source: VolumeSource) -> SeenVolume:
        if source.pod_uid is None or self._find("volumeDevices", source) is None:
            return SeenVolume()
        device = mapped_device(self._plugins, source.pod_uid)  # it has no other volume
        return SeenVolume(device, is_made=device is not None)

    def _look_in(self, folder: int, path: Path, source: VolumeSource) -> SeenVolume:
        found = _stat(folder)
        if found is None:
            return SeenVolume(path / FILE)
        is_given = self._qemu_user in {None, found.st_uid}
        is_made = is_given and not any(map(_is_closed, self._way(path)))
        return SeenVolume(path / FILE, is_made=is_made, problem=_problem(found, source))

    def _way(self, path: Path) -> tuple[Path, ...]:
        """Return the kubelet's folders that lead to a volume; those of other pods remain closed."""
        return tuple(folder for folder in path.parents if folder.is_relative_to(self._pods))

    @contextmanager
    def _opened(self, source: VolumeSource) -> Iterator[tuple[int, Path]]:
        """Open the folder on which a volume is mounted; FileNotFoundError when none is."""
        found = self._find("volumes", source)
        if found is None:
            raise FileNotFoundError(source.volume)
        path = found / "mount" if found.parent.name == _CSI else found
        folder = os.open(path, _FOLDER)
        try:
            if not _is_mounted(folder, path.parent):
                raise FileNotFoundError(path)
            yield folder, path
        finally:
            os.close(folder)

    def _find(self, kind: str, source: VolumeSource) -> Path | None:
        """Return where a volume is below the folder of its plugin, whichever that is."""
        if source.pod_uid is None or source.volume is None:
            return None
        with os.scandir(self._pods / source.pod_uid / kind) as plugins:
            folders = sorted(Path(entry.path) for entry in plugins if entry.is_dir(follow_symlinks=False))
        return next((path for folder in folders if os.path.lexists(path := folder / source.volume)), None)


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & stat.S_IXOTH


def _is_mounted(folder: int, parent: Path) -> bool:
    """Tell whether something is mounted on a folder; a mount of the same file system again has the same device."""
    above = os.open(parent, _FOLDER)
    try:
        return _mount_id(folder) != _mount_id(above)
    finally:
        os.close(above)


def _mount_id(descriptor: int) -> str:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))


def _stat(folder: int) -> os.stat_result | None:
    """Look at what has the file's name; None when nothing has."""
    try:
        return os.stat(FILE, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _problem(found: os.stat_result, source: VolumeSource) -> str:
    """Say why what has the file's name is not used; empty when it is a file that is in this volume alone."""
    where = f"{FILE} in the volume of the claim {source.claim}"
    if stat.S_ISLNK(found.st_mode):
        return f"{where} is a symbolic link, which is not followed: put a raw file in its place."
    if not stat.S_ISREG(found.st_mode):
        return f"{where} is no regular file: put a raw file there, or remove it for an empty one."
    if found.st_nlink != 1:
        return f"{where} has {found.st_nlink} names (hard links), so others may use it: put a copy there instead."
    return ""


def _give(folder: int, source: VolumeSource, user: int) -> None:
    """Give the file to QEMU's user: the one that is looked at, whatever takes its name meanwhile."""
    descriptor = os.open(FILE, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(descriptor)
        if problem := _problem(found, source):
            raise ConflictError(problem)
        if found.st_uid != user:
            os.chown(f"/proc/self/fd/{descriptor}", user, -1)
    finally:
        os.close(descriptor)


def _make(folder: int, source: VolumeSource, size_bytes: int | None) -> None:
    space = os.fstatvfs(folder)
    size = file_size(size_bytes, space.f_bavail * space.f_frsize)
    if size < MIB:
        raise ConflictError(f"The volume of the claim {source.claim} has no room for {FILE}: free space in it.")
    partial = FILE + PARTIAL
    with suppress(FileNotFoundError):
        os.unlink(partial, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o600, dir_fd=folder)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(partial, FILE, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
