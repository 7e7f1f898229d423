"""The MachineSnapshot document: what the operator asks a node to capture and keep, and what the node says of it."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Label, Uid
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.vm_snapshot import SnapshotIndication, SnapshotMode, SnapshotPhase


class MachineSnapshot(Document):
    """A snapshot that the node shall hold: captured once, of a machine of this node, or with `present` false removed.

    One that is there is not captured again, whatever becomes of its machine.
    """

    uid: Uid
    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    machine_uid: Uid
    mode: SnapshotMode = SnapshotMode.MEMORY
    quiesce: bool = True
    exclude_disks: Annotated[tuple[Label, ...], Field(max_length=64)] = ()
    present: bool = True


class SnapshotDiskReport(Document):
    """A disk in a snapshot."""

    name: str
    pool: str
    capacity_bytes: int
    size_bytes: int = 0
    """What its layer takes in the pool beyond the one below it."""


class SnapshotReport(Document):
    """How far the node has come with a snapshot."""

    uid: Uid
    namespace: str
    name: str
    machine_uid: Uid
    phase: SnapshotPhase
    reason: str = ""
    message: str = ""
    progress_percent: Annotated[int | None, Field(ge=0, le=100)] = None
    created_at: datetime | None = None
    """The instant that was captured."""
    pause_milliseconds: int | None = None
    memory_bytes: int | None = None
    """What the memory image takes; None without memory."""
    disks: tuple[SnapshotDiskReport, ...] = ()
    indications: tuple[SnapshotIndication, ...] = ()
    parent_uid: str | None = None
    """Snapshot that the machine had been captured in, or restored from, before."""
