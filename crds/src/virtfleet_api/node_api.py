"""The HTTPS interface of a node daemon: paths, headers, and the lines of its watch stream.

    PUT    /v1/machines/{uid}          Machine        → MachineReport   desired state, as a whole
    GET    /v1/machines                               → MachineList
    GET    /v1/machines/{uid}                         → MachineReport
    DELETE /v1/machines/{uid}                         → MachineReport   stored document with run Absent (orphans)
    GET    /v1/machines/{uid}/interfaces              → InterfaceList   traffic of its network cards, as it is now
    GET    /v1/machines/{uid}/console                 → WebSocket       binary frames, serial console; ?history=<bytes>
                                                                       sends the tail first, ?follow=false then closes
    GET    /v1/machines/{uid}/vnc                     → WebSocket       binary frames, the display (RFC 6143)
    PUT    /v1/images/{uid}            Image          → ImageReport
    GET    /v1/images                                 → ImageList
    PUT    /v1/pools                   PoolSet        → PoolList        those beside the configuration file's
    PUT    /v1/network          NodeNetwork    → NetworkReport   physical networks and peers
    GET    /v1/images/{uid}/upload                    → UploadState
    PUT    /v1/images/{uid}/upload     bytes          → UploadState    ?offset=<where it goes on>&size=<of the file>;
                                                                       at the end no bytes, but &sha256=<of the file>
    PUT    /v1/snapshots/{uid}         MachineSnapshot → SnapshotReport  captured once, or removed
    GET    /v1/snapshots                              → SnapshotList
    GET    /v1/node                                   → NodeReport
    GET    /v1/watch?cursor=<cursor>                  → one JSON document a line: WatchEvent

Mutual TLS: the peer must hold an operator's certificate of the fleet. Every PUT and DELETE carries EPOCH_HEADER; a
lower epoch than the highest one seen is refused with 409 StaleEpoch. Errors are `Problem` documents.

On a port of its own (`NodeReport.copy_port`), for nodes that show the copy token of the image instead of a certificate:

    GET    /v1/images/{uid}/content                   → bytes          of an image that is Ready here; Range, If-Range
    GET    /v1/images/{uid}/initrd                    → bytes
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from virtfleet_api.base import Document
from virtfleet_api.image import ImageReport
from virtfleet_api.network import LinkState
from virtfleet_api.report import MachineReport, NodeReport, PoolReport
from virtfleet_api.snapshot import SnapshotReport

EPOCH_HEADER: Final = "Virtfleet-Epoch"
"""leaseTransitions of the Lease that the instructing operator holds."""

MAX_DOCUMENT_BYTES: Final = 1 << 20
"""Largest request body a daemon reads: a Machine with 64 KiB of user data and 32 disks has about 150 KiB."""

HEARTBEAT_SECONDS: Final = 5.0
"""A stream that is silent for three of these is dead."""

MAX_PIECE_BYTES: Final = 64 << 20
"""Largest piece of an upload: at 10 Mbit/s it takes as long as an API server waits for a request, one minute."""

CONSOLE_HISTORY_BYTES: Final = 65536
"""Most that `?history=` gives."""


class ProblemReason(StrEnum):
    """Why a request was refused."""

    STALE_EPOCH = "StaleEpoch"
    INVALID = "Invalid"
    FORBIDDEN = "Forbidden"
    NOT_FOUND = "NotFound"
    CONFLICT = "Conflict"
    UNAVAILABLE = "Unavailable"


class Problem(Document):
    """Body of every refusal."""

    reason: ProblemReason
    message: str


class MachineList(Document):
    """All machines of the node."""

    items: tuple[MachineReport, ...]


class ImageList(Document):
    """All images of the node."""

    items: tuple[ImageReport, ...]


class SnapshotList(Document):
    """All snapshots of machines that the node holds."""

    items: tuple[SnapshotReport, ...]


class PoolList(Document):
    """All pools of the node, and those that it could not make."""

    items: tuple[PoolReport, ...]


class InterfaceTraffic(Document):
    """A network card of a running guest, and what has passed through it since it was plugged in.

    As the guest sees it: received is what came to the guest, sent what came from it. None with QEMU's own NAT, which
    counts nothing.
    """

    name: str
    mac: str
    port: str | None = None
    state: LinkState = LinkState.UP
    received_bytes: int | None = None
    received_packets: int | None = None
    received_drops: int | None = None
    """Packets that the card dropped; those that the limit holds back are dropped before and not among them."""
    sent_bytes: int | None = None
    sent_packets: int | None = None
    sent_drops: int | None = None


class InterfaceList(Document):
    """The network cards of a machine; none while it is off."""

    items: Annotated[tuple[InterfaceTraffic, ...], Field(max_length=64)]


class Snapshot(Document):
    """The whole state: first line of a stream without a cursor, or with one too old or of another process."""

    type: Literal["Snapshot"] = "Snapshot"
    cursor: str
    node: NodeReport
    machines: tuple[MachineReport, ...]
    images: tuple[ImageReport, ...]
    snapshots: tuple[SnapshotReport, ...] = ()


class MachineChanged(Document):
    """A machine changed; with phase Absent it is gone and will not be reported again."""

    type: Literal["MachineChanged"] = "MachineChanged"
    cursor: str
    machine: MachineReport


class ImageChanged(Document):
    """An image changed."""

    type: Literal["ImageChanged"] = "ImageChanged"
    cursor: str
    image: ImageReport


class ImageRemoved(Document):
    """The node holds no part of this image any more."""

    type: Literal["ImageRemoved"] = "ImageRemoved"
    cursor: str
    uid: str


class SnapshotChanged(Document):
    """A snapshot of a machine changed."""

    type: Literal["SnapshotChanged"] = "SnapshotChanged"
    cursor: str
    snapshot: SnapshotReport


class SnapshotRemoved(Document):
    """The node holds nothing of this snapshot any more."""

    type: Literal["SnapshotRemoved"] = "SnapshotRemoved"
    cursor: str
    uid: str


class NodeChanged(Document):
    """The inventory changed."""

    type: Literal["NodeChanged"] = "NodeChanged"
    cursor: str
    node: NodeReport


class Heartbeat(Document):
    """Nothing changed; the stream is alive."""

    type: Literal["Heartbeat"] = "Heartbeat"
    cursor: str


WatchEvent = (
    Snapshot
    | MachineChanged
    | ImageChanged
    | ImageRemoved
    | SnapshotChanged
    | SnapshotRemoved
    | NodeChanged
    | Heartbeat
)

WATCH_EVENT: Final[TypeAdapter[WatchEvent]] = TypeAdapter(Annotated[WatchEvent, Field(discriminator="type")])
"""Parses one line of the stream: `WATCH_EVENT.validate_json(line)`."""
