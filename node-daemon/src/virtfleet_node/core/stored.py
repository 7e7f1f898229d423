"""What lies on the host's file systems, as values. The storage package reads them; nothing here opens a file."""

from dataclasses import dataclass
from pathlib import Path

from virtfleet_api.image import ImageFormat


@dataclass(frozen=True)
class StoredDisk:
    """A disk file of a machine."""

    pool: str
    name: str
    path: Path
    format: ImageFormat
    capacity_bytes: int
    backing_image_uid: str | None = None
    layers: tuple[Path, ...] = ()
    """What it lies on above its image, the nearest first: layers of snapshots, perhaps another machine's."""
    allocated_bytes: int = 0
    """What the file takes of its file system; less than its capacity as long as it is thin."""

    @property
    def needs_others(self) -> bool:
        """Tell whether it lies on an image, or on layers of another machine."""
        return self.backing_image_uid is not None or any(layer.parent != self.path.parent for layer in self.layers)


@dataclass(frozen=True)
class ImageCopy:
    """A file of an image that is ready, to be copied by another node."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class ImageFiles:
    """The files of an image that is ready."""

    path: Path
    format: ImageFormat
    virtual_size_bytes: int
    initrd: Path | None = None
