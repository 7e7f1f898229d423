"""The steps of a restore, as values. Each is idempotent, and any that was planned may be lost."""

from dataclasses import dataclass

from virtfleet_node.core.record import Record
from virtfleet_node.core.restoring import Restoring


@dataclass(frozen=True)
class BeginRestore:
    """Keep what is going to be done, unless something else works on the machine's disks just now."""

    record: Record

    def __str__(self) -> str:
        """Say it in words."""
        uid = self.record.restoring.snapshot_uid if self.record.restoring else ""
        return f"begin to restore snapshot {uid}"


@dataclass(frozen=True)
class MakeLayers:
    """Put the disks back, by new layers above those of the snapshot."""

    restoring: Restoring

    def __str__(self) -> str:
        """Say it in words."""
        return f"put back {', '.join(layer.name for layer in self.restoring.layers)}"


@dataclass(frozen=True)
class DropLayers:
    """Remove the new layers: the disks are as they were before."""

    restoring: Restoring

    def __str__(self) -> str:
        """Say it in words."""
        return f"leave {', '.join(layer.name for layer in self.restoring.layers)} as before"


@dataclass(frozen=True)
class StartWarm:
    """Start the guest with the memory of the snapshot, and leave it paused; the restore is done then."""

    record: Record
    """Kept before the start."""

    def __str__(self) -> str:
        """Say it in words."""
        return "start from memory"


@dataclass(frozen=True)
class TidyLayers:
    """Remove layers that nobody needs any more."""

    def __str__(self) -> str:
        """Say it in words."""
        return "remove layers that nobody needs"


@dataclass(frozen=True)
class SetClock:
    """Have the guest agent set the guest's clock."""

    def __str__(self) -> str:
        """Say it in words."""
        return "set the guest's clock"


@dataclass(frozen=True)
class SetMachineId:
    """Have the guest agent write the guest's own machine-id."""

    def __str__(self) -> str:
        """Say it in words."""
        return "give the guest a machine-id of its own"


CLOCK = "clock"
"""What `Observed.asked` calls the guest's clock."""
MACHINE_ID = "machine-id"
"""What `Observed.asked` calls the guest's machine-id."""

RestoreAction = BeginRestore | MakeLayers | DropLayers | StartWarm | TidyLayers | SetClock | SetMachineId
