"""The Image document: what the operator asks a node to hold, and what the node says of it."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Label, Sha256, Uid
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.vm_image import MAX_CA_BUNDLE, ImagePhase, ImageType

ADDRESS_PATTERN: Final = r"^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$"


class Download(Document):
    """One file to fetch over http or https."""

    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=2048)]
    sha256: Sha256 | None = None
    ca_bundle: Annotated[str | None, Field(max_length=MAX_CA_BUNDLE)] = None
    """PEM certificates that the server's must be issued by, instead of those the system trusts."""
    authenticated: bool = False
    """The server wants credentials; without `authorization` the download waits for them."""
    authorization: Annotated[str | None, Field(max_length=16384, pattern=r"^[ -~]*$", repr=False)] = None
    """Value of the header Authorization. Secret: never stored, never logged, for this server alone."""

    def without_secrets(self) -> "Download":
        """Return the form that may be stored."""
        return self.model_copy(update={"authorization": None})

    def content(self) -> tuple[str, str | None]:
        """Return what makes it another file if it differs."""
        return self.url, self.sha256


class DiskOrigin(Document):
    """A disk of a machine that the image is a copy of, made once, by the node that the machine is on."""

    machine: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    """Its name, in the image's namespace."""
    name: Label
    """Of the disk."""
    machine_uid: Uid | None = None
    """None for a node that has other nodes to copy from, now or later."""
    pool: Label | None = None
    """Where the disk is, with `machine_uid`."""

    @property
    def is_here(self) -> bool:
        """Tell whether the node is the one to copy it."""
        return self.machine_uid is not None

    def content(self) -> tuple[str, ...]:
        """Return what makes it another image if it differs."""
        return self.machine, self.name


class SnapshotOrigin(Document):
    """A disk of a snapshot that the image is a copy of, made once, by the node that holds the snapshot."""

    snapshot: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    """Its name, in the image's namespace."""
    name: Label
    """Of the disk in the snapshot."""
    snapshot_uid: Uid | None = None
    """None for a node that has other nodes to copy from, now or later."""

    @property
    def is_here(self) -> bool:
        """Tell whether the node is the one to copy it."""
        return self.snapshot_uid is not None

    def content(self) -> tuple[str, ...]:
        """Return what makes it another image if it differs."""
        return "snapshot", self.snapshot, self.name


CopyOrigin = DiskOrigin | SnapshotOrigin
"""What an image is a copy of that this fleet holds."""


class Peer(Document):
    """A node that holds the image, to be asked for it before its source is."""

    node: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=63)]
    """The name in its certificate."""
    address: Annotated[str, Field(pattern=ADDRESS_PATTERN)]
    """host:port of its copies."""
    sha256: Sha256
    """Of the image's file; a copy that differs is refused."""
    size_bytes: Annotated[int, Field(ge=0)]
    initrd_sha256: Sha256 | None = None


class Image(Document):
    """An image that the node shall hold, or, with `present` false, shall remove once nothing is backed by it."""

    uid: Uid
    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    type: ImageType = ImageType.DISK
    pool: Label
    main: Download | None = None
    """None for an image that is a copy of a disk, or that somebody uploads to one node of the fleet."""
    disk: DiskOrigin | None = None
    snapshot: SnapshotOrigin | None = None
    initrd: Download | None = None
    present: bool = True
    sha256: Sha256 | None = None
    """Of the copies that are there: what the source gives now must be the same."""
    peers: Annotated[tuple[Peer, ...], Field(max_length=8)] = ()
    copy_token: Annotated[str | None, Field(max_length=128, repr=False)] = None
    """What nodes show each other to copy this image, and nothing else. Secret, not stored."""

    @property
    def copy_origin(self) -> CopyOrigin | None:
        """Return the disk that the image is a copy of, whatever has it."""
        return self.disk or self.snapshot

    def without_secrets(self) -> "Image":
        """Return the form that may be stored; peers are left out, since they change."""
        main, initrd = (source.without_secrets() if source else None for source in (self.main, self.initrd))
        return self.model_copy(update={"main": main, "initrd": initrd, "peers": (), "copy_token": None})

    def content(self) -> tuple[object, ...]:
        """Return what makes it another image if it differs."""
        main, initrd = (source.content() if source else None for source in (self.main, self.initrd))
        origin = self.copy_origin
        return self.type, self.pool, main, initrd, origin.content() if origin else None


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
    sha256: Sha256 | None = None
    """Of the file; with READY."""
    file_size_bytes: Annotated[int | None, Field(ge=0)] = None
    """With READY; before, how much of an upload has arrived."""
    initrd_sha256: Sha256 | None = None
    users: tuple[str, ...] = ()
    """UIDs of machines on this node whose disks are backed by it."""


class UploadState(Document):
    """How much of an upload is there."""

    received_bytes: Annotated[int, Field(ge=0)]
    """Where the next piece goes on."""
    phase: ImagePhase
    reason: str = ""
    message: str = ""


class PieceQuery(Document):
    """What the query of an upload's request says of its piece."""

    offset: Annotated[int, Field(ge=0, lt=2**63)]
    """Where in the file it goes on."""
    size: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    """Of the whole file."""
    sha256: Sha256 | None = None
    """Of the whole file, with the last request, which has no piece: all of it is there."""
