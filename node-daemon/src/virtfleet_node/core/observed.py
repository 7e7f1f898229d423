"""What is, as one frozen value: the domain, its stored document, and what lies on disk for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from virtfleet_api.machine import MachineDisk
from virtfleet_api.network import LinkState
from virtfleet_node.core.compute import AttachedMemory, AttachedVcpus
from virtfleet_node.core.devices import HostView
from virtfleet_node.core.full_pool import Resumes
from virtfleet_node.core.limits import NO_LIMIT, NO_QUOTA, CardLimit, CpuQuota
from virtfleet_node.core.numa.choose import Refused
from virtfleet_node.core.numa.pins import NOT_PINNED, Pinning, SeenPins
from virtfleet_node.core.numa.placement import Placement
from virtfleet_node.core.places import Places
from virtfleet_node.core.pool_rules import PoolSpace
from virtfleet_node.core.record import Record, Stored
from virtfleet_node.core.snapshot_view import SnapshotView
from virtfleet_node.core.stored import StoredDisk
from virtfleet_node.core.volumes import SeenVolume


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
    """A disk or drive that a running guest has."""

    file: str
    """Path of its file, device or medium; empty for an empty drive."""
    target: str
    """Device name in the domain, such as vda."""
    bus: str = "virtio"
    cache: str = ""
    drive: str = ""
    """Name of the drive, for a drive of the document."""
    volume: str = ""
    """Name of the disk, for a volume of Kubernetes'."""
    claim: str = ""
    """Which claim the volume is of, as `claim_key` tells."""
    tuning: tuple[tuple[str, int | str], ...] = ()
    """Its limits, as libvirt's parameters."""


@dataclass(frozen=True)
class AttachedCard:
    """A network card that a running guest has."""

    alias: str
    """libvirt's name of the device."""
    mac: str
    name: str = ""
    """Name in the document; empty for a card that has no name of ours."""
    model: str = "virtio"
    port: str | None = None
    """OVN's logical switch port, with a card on a switch."""
    state: LinkState = LinkState.UP
    limit: CardLimit = NO_LIMIT
    """Towards the guest."""
    mtu: int | None = None
    device: str = ""
    """The node's tap device; QEMU's own NAT has none."""


@dataclass(frozen=True)
class AttachedDevice:
    """A device of the host that a running guest has."""

    alias: str
    """libvirt's name of the device."""
    name: str
    """Name in the document."""
    address: str
    """PCI address, or UUID of a mediated device."""
    mediated: bool = False


@dataclass(frozen=True)
class ObservedDomain:
    """A domain as libvirt shows it."""

    state: DomainState
    off_reason: OffReason = OffReason.UNKNOWN
    disk_error: bool = False
    """Paused by QEMU because a disk could not be written, such as a full pool."""
    full_disks: tuple[str, ...] = ()
    """Device names of the disks that could not be written for lack of space."""
    agent_connected: bool = False
    stored: Stored | None = None
    persistent: bool = True
    """libvirt keeps a definition of it; a domain that was undefined while it ran has none, and no document."""
    machine_type: str = ""
    disks: tuple[AttachedDisk, ...] = ()
    """Those of a running guest."""
    cards: tuple[AttachedCard, ...] = ()
    """Those of a running guest."""
    quota: CpuQuota = NO_QUOTA
    """Of a running guest."""
    devices: tuple[AttachedDevice, ...] = ()
    """Devices of the host that a running guest has, those of ours."""
    free_ports: frozenset[int] = frozenset()
    """PCI Express ports of a running guest with nothing in them."""
    has_scsi: bool = False
    """The running guest has a SCSI controller."""
    pins: SeenPins = NOT_PINNED
    """Of a running guest."""
    vcpus: AttachedVcpus | None = None
    """Those of a running guest; None where nothing can be changed of them."""
    memory: AttachedMemory | None = None
    """That of a running guest; None where nothing can be changed of it."""

    @property
    def active(self) -> bool:
        """Tell whether there is a QEMU process."""
        return self.state not in {DomainState.ABSENT, DomainState.OFF}


@dataclass(frozen=True)
class ShutdownRequests:
    """How often the guest has been asked to shut down; kept in memory, asking again does no harm."""

    count: int = 0
    last: datetime | None = None


HOLDS_AFTER: Final = timedelta(seconds=5)
"""A guest lets go within a second or two; one that has not by then holds what it was asked for."""


@dataclass(frozen=True)
class Asking:
    """When the guest was asked for something, such as a disk; kept in memory, asking again does no harm."""

    first: datetime
    last: datetime

    def again(self, now: datetime) -> "Asking":
        """Return the same with one more request."""
        return Asking(self.first, now)


@dataclass(frozen=True)
class Folding:
    """Layers of a disk that are to be removed or merged."""

    pool: str
    disk: str
    waits: str = ""
    """What it waits for, as a sentence; empty when it can go on."""


@dataclass(frozen=True)
class Observed:
    """Everything the plan looks at."""

    domain: ObservedDomain
    disks: tuple[StoredDisk, ...] = ()
    ready_images: frozenset[str] = frozenset()
    """Of the images that the machine needs, those that are ready."""
    volumes: Mapping[str, SeenVolume] = field(default_factory=dict)
    """By disk, volumes of Kubernetes' that the guest does not have, as they were looked for on this node."""
    media_digest: str | None = None
    """The cloud-init medium that is there, of those the machine wants."""
    shutdown: ShutdownRequests = field(default_factory=ShutdownRequests)
    asked: Mapping[str, Asking] = field(default_factory=dict)
    """What the guest was asked for: disks and media by target, others by alias, figures by their key."""
    host: HostView = field(default_factory=HostView)
    """The host's devices, and who has them."""
    guest_vcpus: int | None = None
    """vCPUs that are online by the guest's agent; None as long as it has not said."""
    paused_at: datetime | None = None
    full_pools: tuple[PoolSpace, ...] = ()
    """The pools for whose lack of space QEMU has paused the guest, as they are now."""
    resumes: Resumes = field(default_factory=Resumes)
    work: str = ""
    """How far the long action is that goes on."""
    flattening: tuple[str, str, str] | None = None
    """Pool and name of the disk that is made independent of its image, and how far it is."""
    folding: Folding | None = None
    """Layers that nobody names; None when there are none."""
    merging: str = ""
    """How far the merge of layers is that goes on."""
    is_captured: bool = False
    """The running guest is being captured: libvirt refuses to change anything of it, but for its end."""
    is_copied: bool = False
    """The running guest's disks are being copied just now, and must keep their size."""
    snapshot: SnapshotView | None = None
    """The snapshot that the machine is restored to, or is to be; None when the node has none such."""
    disks_in_use: bool = False
    """Something else works on the machine's disks just now, such as a copy of them."""
    wanted_by: tuple[str, ...] = ()
    """Machines, as namespace/name, that have yet to copy disks of this one; looked up when it is to be removed."""
    cpu_frequency_hz: int = 0
    """Of one CPU of the host; 0 when it is not known."""
    network_problem: str = ""
    """Why no card can be plugged into a switch on this node, as a sentence."""
    placement: Placement | None = None
    """Where the running guest shall lie."""
    pinning: Pinning | None = None
    """Where its threads shall run; None when nobody minds."""
    no_place: Refused | None = None
    """Why the node has no CPUs or memory for a machine that is off."""

    def stored_disk(self, disk: MachineDisk) -> StoredDisk | None:
        """Return the file of a disk, None when it is not there; a volume of Kubernetes' is in no pool."""
        if disk.is_volume:
            return None
        return next((s for s in self.disks if (s.pool, s.name) == (disk.pool, disk.name)), None)

    @property
    def places(self) -> Places:
        """Return where the machine's devices sit, as far as they have been given a place."""
        return self.domain.stored.places if self.domain.stored else Places()

    @property
    def record(self) -> Record:
        """Return the daemon's memory of the machine, empty for one that is not defined."""
        return self.domain.stored.record if self.domain.stored else Record()
