"""What is kept of a snapshot of a machine, as JSON beside its memory image. There is no other memory of it."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Hardware, Label
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_api.vm_snapshot import SnapshotIndication
from virtfleet_node.core.places import Places
from virtfleet_node.core.record import ERROR_LENGTH

LAYER_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[0-9]{1,9})?\.qcow2$"


class CapturedDisk(Document):
    """A disk of a snapshot: a layer in the folder of the machine that it was captured from, in its pool."""

    name: Label
    pool: Label
    file: Annotated[str, Field(pattern=LAYER_PATTERN)]
    capacity_bytes: int


class Captured(Document):
    """What was captured."""

    created_at: datetime
    """The instant."""
    pause_milliseconds: int = 0
    hardware: Hardware
    """What the guest had been started with; of a machine that was off, what its document said."""
    places: Places
    disks: tuple[CapturedDisk, ...]
    memory: bool = False
    """There is a memory image."""
    indications: tuple[SnapshotIndication, ...] = ()
    parent_uid: str = ""
    """Snapshot that the machine had been captured in, or restored from, before; empty for none."""


class KeptSnapshot(Document):
    """A snapshot as it is kept: it exists once `captured` is there."""

    document: MachineSnapshot
    captured: Captured | None = None
    reason: str = ""
    error: Annotated[str, Field(max_length=ERROR_LENGTH)] = ""
    """Why it failed for good; empty when it did not."""

    def to_json(self) -> bytes:
        """Return the form that is kept."""
        return self.model_dump_json(exclude_none=True).encode()

    @property
    def uid(self) -> str:
        """Return its UID."""
        return self.document.uid
