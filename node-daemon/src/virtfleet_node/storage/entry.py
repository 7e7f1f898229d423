"""One image on this node: what is wanted of it, what is known of it, and the task that works on it."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from virtfleet_api.image import Image, ImageReport
from virtfleet_api.vm_image import ImagePhase, ImageType
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage.files import read_small

DOCUMENT, READY, UPLOAD = "image.json", "ready.json", "upload.json"
"""The Image document, the report that makes an image Ready, and what an upload that is complete must be."""

INITRD: Final = "initrd"


@dataclass
class ImageEntry:
    """An image."""

    image: Image
    folder: Path
    report: ImageReport
    files: ImageFiles | None = None
    """Once it is Ready."""
    task: "asyncio.Task[None] | None" = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is a reason to try again at once: another document, or an upload that is complete."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever writes the image's files."""

    @property
    def target(self) -> Path:
        """Return the path of the image's file."""
        return self.folder / ("kernel" if self.image.type is ImageType.KERNEL else "disk")

    @property
    def uploaded(self) -> bool:
        """Tell whether the image has no source but a person, or a node that has it from one."""
        return self.image.main is None and self.image.disk is None


def build_report(image: Image, phase: ImagePhase) -> ImageReport:
    """Return the report of an image of which nothing else is known."""
    return ImageReport(uid=image.uid, namespace=image.namespace, name=image.name, phase=phase)


def read_report(folder: Path) -> ImageReport | None:
    """Return the report of an image that is complete: the mark that lies beside its files."""
    try:
        return ImageReport.model_validate_json(read_small(folder / READY) or b"")
    except ValidationError:
        return None
