"""A restore of a machine to a snapshot that has been begun, as it is kept in the machine's record."""

from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Label, Uid

ATTEMPTS: Final = 3
"""Starts from memory that may be cut off before it is given up: what kills QEMU each time does so again."""

REASON_LENGTH: Final = 400


class NewLayer(Document):
    """A disk that is put back: by a new layer above the one that the snapshot names."""

    name: Label
    """Of the machine's disk."""
    pool: Label
    file: str
    """Name of the new layer in the machine's folder."""
    captured: Label
    """Name of the disk in the snapshot."""


class Restoring(Document):
    """What is under way. Whoever finds it goes on with it, whatever the document says by then."""

    token: Uid
    snapshot_uid: Uid
    memory: bool
    """The guest is to go on with the memory of the snapshot."""
    machine_id: bool = False
    """It is to be given a machine-id of its own then."""
    layers: tuple[NewLayer, ...] = ()
    """None for a disk that was not there yet, and is made from the snapshot."""
    attempts: int = 0
    """Starts from memory that were begun."""
    error: Annotated[str, Field(max_length=REASON_LENGTH)] = ""
    """Why it is given up: the new layers go, and the disks are as they were before."""
