"""The kind VMImage: a disk, a CD or a kernel that machines start from."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from virtfleet_api.base import ATOMIC, Model
from virtfleet_api.conditions import Condition
from virtfleet_api.names import DEFAULT_POOL, DNS_LABEL_PATTERN
from virtfleet_api.quantity import Bytes
from virtfleet_api.resource import PrinterColumn, Resource
from virtfleet_api.secret_reference import SecretReference
from virtfleet_api.virtual_machine import DiskReference, SnapshotDiskReference

MAX_CA_BUNDLE: Final = 65536
"""Characters of PEM: thirty certificates, more than the chain of any one authority."""


class ImageType(StrEnum):
    """What an image is good for."""

    DISK = "Disk"
    ISO = "ISO"
    KERNEL = "Kernel"


class ImagePhase(StrEnum):
    """How far an image has come."""

    PENDING = "Pending"
    IMPORTING = "Importing"
    READY = "Ready"
    FAILED = "Failed"


class UploadSource(Model):
    """A file that somebody sends with `kubectl vm image upload`."""


class HttpSource(Model):
    """A file on a web server."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    url: Annotated[
        str,
        Field(pattern=r"^https?://[!-~]+$", max_length=2048, description="http or https address of the file."),
    ]
    checksum: Annotated[
        str | None,
        Field(
            pattern=r"^sha256:[0-9a-f]{64}$",
            max_length=71,
            description='Digest the file must have, "sha256:" and 64 hexadecimal digits.',
        ),
    ] = None
    secret_ref: Annotated[
        SecretReference | None,
        Field(
            description="Secret with `username` and `password`, or with `token` (a bearer token), that the server asks "
            "for. It goes to the nodes that download the file, and to no server but this one."
        ),
    ] = None
    ca_bundle: Annotated[
        str | None,
        Field(
            max_length=MAX_CA_BUNDLE,
            description="PEM certificates of the authority that the server's certificate is from, instead of those "
            "that the nodes trust.",
        ),
    ] = None


class ImageSource(Model):
    """Where the image comes from: exactly one of `http`, `upload`, `disk` and `snapshot`."""

    http: Annotated[HttpSource | None, Field(description="Download it.")] = None
    upload: Annotated[
        UploadSource | None, Field(description="Wait for `kubectl vm image upload`, which sends a file.")
    ] = None
    disk: Annotated[
        DiskReference | None,
        Field(
            description="Copy a machine's disk once, while that machine runs or is off; the image is independent of "
            "both from then on."
        ),
    ] = None
    snapshot: Annotated[
        SnapshotDiskReference | None,
        Field(description="Copy a disk once as a VMSnapshot has it; the image is independent of it from then on."),
    ] = None
    initrd: Annotated[
        HttpSource | None, Field(description="The initial RAM disk that belongs to an image of type Kernel.")
    ] = None


class VMImageSpec(Model):
    """What the user wants."""

    source: Annotated[ImageSource, Field(description="Where the image comes from; cannot change once imported.")]
    type: Annotated[ImageType, Field(description="Disk (raw or qcow2), ISO (a CD or DVD) or Kernel.")] = ImageType.DISK
    pool: Annotated[
        str,
        Field(
            pattern=DNS_LABEL_PATTERN,
            max_length=63,
            description="Storage pool of the nodes that keep the image.",
        ),
    ] = DEFAULT_POOL
    shared: Annotated[bool, Field(description="Let machines of every namespace use it.")] = False


class NodeImageStatus(Model):
    """The copy of one node."""

    name: Annotated[str, Field(description="VMNode.")]
    phase: Annotated[ImagePhase, Field(description="How far this copy has come.")]
    unused_since: Annotated[
        datetime | None,
        Field(description="Since when no machine of the node uses it; in time it is removed if another copy stays."),
    ] = None


class VMImageStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    phase: Annotated[ImagePhase | None, Field(description="Ready once at least one node holds it.")] = None
    progress: Annotated[str | None, Field(description='Share of the first import that is done, such as "42%".')] = None
    format: Annotated[str | None, Field(description="Format found: raw or qcow2.")] = None
    virtual_size: Annotated[Bytes | None, Field(description="Size a machine sees.")] = None
    actual_size: Annotated[Bytes | None, Field(description="Size on the node's disk.")] = None
    checksum: Annotated[
        str | None, Field(description='"sha256:" and the digest of the file; every further copy must have it.')
    ] = None
    nodes: Annotated[tuple[NodeImageStatus, ...], Field(description="Copies.")] = ()
    users: Annotated[
        tuple[str, ...], Field(description="Machines that use it, as namespace/name; the first 100 of them.")
    ] = ()
    user_count: Annotated[int, Field(description="Number of machines that use it.")] = 0
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class VMImage(Resource):
    """An image that machines start from."""

    plural: ClassVar[str] = "vmimages"
    short_names: ClassVar[tuple[str, ...]] = ("vmimg",)
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Phase", json_path=".status.phase"),
        PrinterColumn(name="Progress", json_path=".status.progress"),
        PrinterColumn(name="Format", json_path=".status.format"),
        PrinterColumn(name="Size", json_path=".status.virtualSize"),
        PrinterColumn(name="Users", type="integer", json_path=".status.userCount", priority=1),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VMImage"
    spec: VMImageSpec
    status: VMImageStatus = VMImageStatus()
