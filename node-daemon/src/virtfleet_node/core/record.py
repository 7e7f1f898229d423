"""What the daemon remembers of a machine, kept as JSON in the domain's metadata. There is no other memory of it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Hardware, Machine, MachineDisk, Run
from virtfleet_api.report import StopReason
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.numa.placement import Placement
from virtfleet_node.core.places import Places, assign
from virtfleet_node.core.restoring import Restoring

ERROR_LENGTH: Final = 400
"""A sentence of libvirt's is shorter; QEMU's own words may be long."""


class Life(StrEnum):
    """What the daemon last knew of the guest.

    STARTING is written before the start and says that it may not have happened.
    """

    OFF = "Off"
    STARTING = "Starting"
    RUNNING = "Running"


class Record(Document):
    """The daemon's memory of a machine's life."""

    served_token: str = ""
    life: Life = Life.OFF
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    stopping_since: datetime | None = None
    """Written before the daemon itself stops a guest, so that the end is known as requested even after a crash."""
    panicked: bool = False
    """The guest has panicked since its last start; written before QEMU is ended, which forgets it."""
    last_stop: StopReason | None = None
    ended: bool = False
    """The guest ended by itself since its last start."""
    failures: int = 0
    """Times it ended by itself or failed to start since it last ran steadily."""
    start_error: Annotated[str, Field(max_length=ERROR_LENGTH)] = ""
    """Why the last start failed; empty when it did not."""
    detached: tuple[MachineDisk, ...] = ()
    """Disks that were taken out of the document; their reclaim policy still holds when the machine is deleted."""
    snapshot_uid: str = ""
    """The snapshot that the machine was captured in, or restored from, last; empty for none."""
    restoring: Restoring | None = None
    """A restore that has been begun."""
    restored_token: str = ""
    """Of the last restore that was served, or has failed."""
    restore_error: Annotated[str, Field(max_length=ERROR_LENGTH)] = ""
    """Why that restore failed; empty when it did not."""
    restored_warm: bool = False
    """The guest went on with the memory of the snapshot."""
    clock_behind: bool = False
    """The guest's clock stands where it stood in the snapshot, and its agent has yet to be told the time."""
    machine_id_due: bool = False
    """The guest has the machine-id of the snapshot, and its agent has yet to write its own."""
    machine_id_error: Annotated[str, Field(max_length=ERROR_LENGTH)] = ""
    """Why it keeps that of the snapshot; empty when it does not, or is not to have another."""


class Stored(Document):
    """Everything that is kept of a machine."""

    desired: Machine
    started: Hardware | None = None
    """What the running guest was started with."""
    record: Record = Record()
    places: Places = Places()
    """Where the devices sit, for the machine's life."""
    placement: Placement | None = None
    """Where the running guest lies on the host's NUMA cells."""
    devices: tuple[ChosenDevice, ...] = ()
    """Devices of the host that the guest has, had last, or is about to get."""

    def to_json(self) -> str:
        """Return the form that is kept, without secrets."""
        safe = self.model_copy(update={"desired": self.desired.without_secrets()})
        return safe.model_dump_json(exclude_none=True)


def new_stored(desired: Machine) -> Stored:
    """Return what is kept of a machine that is seen for the first time: its start token asks for nothing."""
    return Stored(
        desired=desired.without_secrets(),
        record=Record(served_token=desired.start_token),
        places=assign(Places(), desired.hardware),
    )


def forgiven(record: Record) -> Record:
    """Return the record of a machine that was asked to stop: what its guest did before no longer counts."""
    return record.model_copy(update={"ended": False, "failures": 0, "start_error": ""})


def with_desired(stored: Stored, desired: Machine) -> Stored:
    """Return what is kept after a new document: disks that it no longer names are remembered for their reclaim.

    A machine that had ended and shall be off is forgiven here already: the document that wants it on again may come
    before the next plan.
    """
    names = {(disk.pool, disk.name) for disk in desired.hardware.own_disks}
    known = {(d.pool, d.name): d for d in (*stored.record.detached, *stored.desired.hardware.own_disks)}
    detached = tuple(disk for key, disk in known.items() if key not in names)
    record = stored.record.model_copy(update={"detached": detached})
    if desired.run in {Run.STOPPED, Run.ABSENT} and record.life is Life.OFF:
        record = forgiven(record)
    places = assign(stored.places, desired.hardware)
    return stored.model_copy(update={"desired": desired.without_secrets(), "record": record, "places": places})
