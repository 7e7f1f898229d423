"""NoCloud media in the daemon's state directory: <state>/machines/<uid>/cloud-init-<digest>.iso, mode 0600.

They may hold secrets, so nothing of them goes into a pool, a log or libvirt. The format is cloud-init's: an ISO 9660
file system labelled `cidata` with meta-data, user-data and network-config.
"""

import asyncio
import io
from pathlib import Path

import pycdlib

from virtfleet_api.machine import CloudInitFiles
from virtfleet_node.storage.files import make_folder, remove_folder, write_whole

_DIGEST_CHARACTERS = 16


class MediaStore:
    """The media of all machines."""

    def __init__(self, state_directory: Path) -> None:
        self._root = state_directory / "machines"

    async def write_cloud_init(self, uid: str, files: CloudInitFiles) -> Path:
        """Make the medium unless it is there, and remove those that it replaces."""
        path = self._path(uid, files.digest())
        if not path.exists():
            await asyncio.to_thread(self._write, path, files)
        return path

    def path(self, uid: str, digest: str) -> Path | None:
        """Return the medium with this digest if it is there."""
        path = self._path(uid, digest)
        return path if path.exists() else None

    def remove(self, uid: str) -> None:
        """Remove everything that is kept of a machine."""
        remove_folder(self._root / uid)

    def _path(self, uid: str, digest: str) -> Path:
        return self._root / uid / f"cloud-init-{digest[:_DIGEST_CHARACTERS]}.iso"

    def _write(self, path: Path, files: CloudInitFiles) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        make_folder(path.parent, mode=0o700)
        write_whole(path, build_medium(files))


def build_medium(files: CloudInitFiles) -> bytes:
    """Return the ISO 9660 file system with the files that are not empty."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    contents = {
        "meta-data": ("/METADATA.;1", files.meta_data),
        "user-data": ("/USERDATA.;1", files.user_data),
        "network-config": ("/NETCONF.;1", files.network_data),
    }
    for name, (short, text) in contents.items():
        if text or name != "network-config":
            data = text.encode()
            image.add_fp(io.BytesIO(data), len(data), short, rr_name=name, joliet_path=f"/{name}")
    medium = io.BytesIO()
    image.write_fp(medium)
    image.close()
    return medium.getvalue()
