"""What is, as one frozen value: the domain, its stored document, and what lies on disk for it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from virtfleet_node.core.record import Record, Stored
from virtfleet_node.core.stored import StoredDisk


class DomainState(StrEnum):
    """A domain's state as far as the plan cares."""

    ABSENT = "Absent"
    OFF = "Off"
    RUNNING = "Running"
    PAUSED = "Paused"
    CRASHED = "Crashed"
    """The guest has panicked, and QEMU holds what is left of it."""


class OffReason(StrEnum):
    """Why libvirt says the domain is off (virDomainShutoffReason)."""

    UNKNOWN = "Unknown"
    """Never started, or libvirtd has forgotten: it keeps reasons in memory only."""
    SHUTDOWN = "Shutdown"
    DESTROYED = "Destroyed"
    FAILED = "Failed"
    """QEMU has ended without a word of the guest's end: it was killed, or failed."""


@dataclass(frozen=True)
class AttachedDisk:
    """A disk that a running guest has."""

    file: str
    target: str
    """Device name in the domain, such as vda."""
    tuning: tuple[tuple[str, int | str], ...] = ()
    """Its limits, as libvirt's parameters."""


@dataclass(frozen=True)
class ObservedDomain:
    """A domain as libvirt shows it."""

    state: DomainState
    off_reason: OffReason = OffReason.UNKNOWN
    disk_error: bool = False
    """Paused by QEMU because a disk could not be written, such as a full pool."""
    agent_connected: bool = False
    stored: Stored | None = None
    machine_type: str = ""
    disks: tuple[AttachedDisk, ...] = ()
    """Those of a running guest."""

    @property
    def active(self) -> bool:
        """Tell whether there is a QEMU process."""
        return self.state not in {DomainState.ABSENT, DomainState.OFF}


@dataclass(frozen=True)
class ShutdownRequests:
    """How often the guest has been asked to shut down; kept in memory, asking again does no harm."""

    count: int = 0
    last: datetime | None = None


@dataclass(frozen=True)
class Observed:
    """Everything the plan looks at."""

    domain: ObservedDomain
    disks: tuple[StoredDisk, ...] = ()
    ready_images: frozenset[str] = frozenset()
    """Of the images that the machine needs, those that are ready."""
    media_digest: str | None = None
    """The cloud-init medium that is there, of those the machine wants."""
    shutdown: ShutdownRequests = field(default_factory=ShutdownRequests)
    paused_at: datetime | None = None
    work: str = ""
    """How far the long action is that goes on."""
    flattening: tuple[str, str, str] | None = None
    """Pool and name of the disk that is made independent of its image, and how far it is."""
    is_copied: bool = False
    """The running guest's disks are being copied just now, and must keep their size."""
    wanted_by: tuple[str, ...] = ()
    """Machines, as namespace/name, that have yet to copy disks of this one; looked up when it is to be removed."""

    @property
    def record(self) -> Record:
        """Return the daemon's memory of the machine, empty for one that is not defined."""
        return self.domain.stored.record if self.domain.stored else Record()
