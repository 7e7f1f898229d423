"""The Image document: what the operator asks a node to hold, and what the node says of it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Label, Sha256, Uid
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.vm_image import ImagePhase, ImageType


class Download(Document):
    """One file to fetch over http or https."""

    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=2048)]
    sha256: Sha256 | None = None


class Image(Document):
    """An image that the node shall hold, or, with `present` false, shall remove once nothing is backed by it."""

    uid: Uid
    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    type: ImageType = ImageType.DISK
    pool: Label
    main: Download
    initrd: Download | None = None
    present: bool = True


class ImageFormat(StrEnum):
    """Formats that are accepted."""

    RAW = "raw"
    QCOW2 = "qcow2"
    KERNEL = "kernel"


class ImageReport(Document):
    """How far the node has come with an image."""

    uid: Uid
    namespace: str
    name: str
    phase: ImagePhase
    reason: str = ""
    message: str = ""
    progress_percent: Annotated[int | None, Field(ge=0, le=100)] = None
    format: ImageFormat | None = None
    virtual_size_bytes: int | None = None
    actual_size_bytes: int | None = None
    users: tuple[str, ...] = ()
    """UIDs of machines on this node whose disks are backed by it."""
