"""The Machine document: the complete desired state of one machine, sent by the operator to the node that runs it.

It travels as a whole and never as steps. The daemon keeps it, without its secrets, in the metadata of the libvirt
domain, so there is no second database that could disagree with libvirt.
"""

import hashlib
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Annotated, Final, Literal

from pydantic import Field, PlainSerializer

from virtfleet_api.base import Document
from virtfleet_api.compute import CPU_SET_PATTERN, MAX_SHARES
from virtfleet_api.device import PCI_ADDRESS_PATTERN, GpuMode
from virtfleet_api.display import DisplayModel
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN, UID_PATTERN
from virtfleet_api.network import LinkState, NicModel
from virtfleet_api.virtual_machine import Clone, DiskBus, DiskCache, ReclaimPolicy

Uid = Annotated[str, Field(pattern=UID_PATTERN)]
Label = Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
MAC_PATTERN: Final = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Run(StrEnum):
    """The state the machine shall be in."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    ABSENT = "Absent"


class Restart(StrEnum):
    """What the daemon does by itself when a guest ends that shall run.

    ALWAYS starts it again; ON_FAILURE only after a crash or a killed QEMU; NEVER leaves it off until `start_token`
    changes or the machine has been asked to be Stopped in between.
    """

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class BlankSource(Document):
    """An empty disk."""

    kind: Literal["Blank"] = "Blank"


class ImageDiskSource(Document):
    """A disk made from an image that the operator has asked this node to hold."""

    kind: Literal["Image"] = "Image"
    image_uid: Uid
    clone: Clone = Clone.LINKED


class IsoSource(Document):
    """The medium in a drive: an image of type ISO that the operator has asked this node to hold."""

    kind: Literal["Iso"] = "Iso"
    image_uid: Uid


class EmptySource(Document):
    """A drive without a medium."""

    kind: Literal["Empty"] = "Empty"


class DiskCopySource(Document):
    """A disk copied from a disk of another machine of this node, as it is at one moment."""

    kind: Literal["Disk"] = "Disk"
    machine_uid: Uid
    pool: Label
    name: Label
    clone: Clone = Clone.LINKED


class RetainedSource(Document):
    """A disk that a machine of this node, which is gone, has left in the same pool: its file is taken over."""

    kind: Literal["Retained"] = "Retained"
    machine_uid: Uid
    name: Label
    clone: Clone = Clone.LINKED


class SnapshotDiskSource(Document):
    """A disk that begins as a layer above a disk of a snapshot, which this node holds in the same pool."""

    kind: Literal["Snapshot"] = "Snapshot"
    snapshot_uid: Uid
    name: Label
    """Of the disk in the snapshot."""
    clone: Clone = Clone.LINKED


class ExistingSource(Document):
    """A disk that has been made already; what from no longer matters, and with FULL it shall need no image."""

    kind: Literal["Existing"] = "Existing"
    clone: Clone = Clone.LINKED


class VolumeMode(StrEnum):
    """How Kubernetes gives a volume to a pod."""

    FILESYSTEM = "Filesystem"
    BLOCK = "Block"


class VolumeSource(Document):
    """The volume of a PersistentVolumeClaim, which a pod on this node holds; nothing of it is in a pool.

    A block volume is the disk; of one with a file system the disk is the raw file `disk.img`, made when it is missing
    with the disk's `size_bytes`.
    """

    kind: Literal["Volume"] = "Volume"
    claim: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    mode: VolumeMode = VolumeMode.FILESYSTEM
    pod_uid: Uid | None = None
    """Of the pod that holds it; None as long as none does."""
    volume: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)] | None = None
    """Name of the PersistentVolume, as in the kubelet's folder; None as long as no pod holds it."""


AnyDiskSource = (
    BlankSource
    | ImageDiskSource
    | DiskCopySource
    | RetainedSource
    | SnapshotDiskSource
    | ExistingSource
    | IsoSource
    | EmptySource
    | VolumeSource
)


class IoLimits(Document):
    """Limits of a disk's input and output; 0 is no limit."""

    total_iops: Annotated[int, Field(ge=0)] = 0
    read_iops: Annotated[int, Field(ge=0)] = 0
    write_iops: Annotated[int, Field(ge=0)] = 0
    total_bytes_per_second: Annotated[int, Field(ge=0)] = 0
    read_bytes_per_second: Annotated[int, Field(ge=0)] = 0
    write_bytes_per_second: Annotated[int, Field(ge=0)] = 0
    total_iops_burst: Annotated[int, Field(ge=0)] = 0
    read_iops_burst: Annotated[int, Field(ge=0)] = 0
    write_iops_burst: Annotated[int, Field(ge=0)] = 0
    total_bytes_per_second_burst: Annotated[int, Field(ge=0)] = 0
    read_bytes_per_second_burst: Annotated[int, Field(ge=0)] = 0
    write_bytes_per_second_burst: Annotated[int, Field(ge=0)] = 0
    burst_seconds: Annotated[int, Field(ge=1)] = 1
    group: Label | None = None
    """Disks of the machine with the same group share the limits."""


class MachineDisk(Document):
    """A disk. Its file belongs to the machine: <pool>/disks/<machine uid>/<name>.qcow2.

    A drive has no file of its own; what is in it is an image, which belongs to nobody. A volume is Kubernetes'.
    """

    name: Label
    pool: Label
    source: Annotated[AnyDiskSource, Field(discriminator="kind")]
    size_bytes: Annotated[int | None, Field(gt=0, lt=2**63)] = None
    bus: DiskBus = DiskBus.VIRTIO
    cache: DiskCache = DiskCache.NONE
    boot_order: int | None = None
    reclaim_policy: ReclaimPolicy = ReclaimPolicy.DELETE
    limits: IoLimits | None = None
    """Applied to a running guest as well."""

    @property
    def is_drive(self) -> bool:
        """Tell whether this is a CD-ROM drive."""
        return self.bus is DiskBus.CDROM

    @property
    def is_volume(self) -> bool:
        """Tell whether this is a volume of Kubernetes'."""
        return isinstance(self.source, VolumeSource)

    @property
    def medium_uid(self) -> str | None:
        """Return the UID of the image in a drive, None when it is empty."""
        return self.source.image_uid if isinstance(self.source, IsoSource) else None


class InterfaceLimit(Document):
    """A limit of one direction of a network card."""

    bits_per_second: Annotated[int, Field(gt=0)]
    burst_bytes: Annotated[int, Field(gt=0)]


class ForwardPath(Document):
    """How the node itself reaches a guest by a network card: from a port of the card's switch that each node has."""

    port: Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,300}/forward$")]
    """OVN's logical switch port, of type localport."""
    mac: Annotated[str, Field(pattern=MAC_PATTERN)]
    source: Annotated[IPv4Interface | IPv6Interface, PlainSerializer(str)]
    """Of the node, with the length of the prefix."""
    target: Annotated[IPv4Address | IPv6Address, PlainSerializer(str)]
    """Of the guest."""


class MachineInterface(Document):
    """A network card: on the node's integration bridge when it has a port, else with QEMU's own outbound NAT."""

    name: Label
    mac: Annotated[str, Field(pattern=MAC_PATTERN)]
    model: NicModel = NicModel.VIRTIO
    port: Uid | None = None
    """OVN's logical switch port, which Open vSwitch knows as the interface's iface-id."""
    state: LinkState = LinkState.UP
    """Applied to a running guest as well."""
    inbound: InterfaceLimit | None = None
    """Towards the guest; applied to a running guest as well. What comes from it is limited by OVN."""
    mtu: Annotated[int | None, Field(ge=576, le=9000)] = None
    forward: ForwardPath | None = None
    """None when the node cannot reach the guest by this card; nothing else than this is ever connected to."""


class CpuScheduling(Document):
    """What the vCPUs together get of the host's CPUs; applied to a running guest as well."""

    limit_hz: Annotated[int | None, Field(gt=0)] = None
    reservation_hz: Annotated[int, Field(ge=0)] = 0
    shares: Annotated[int | None, Field(gt=0, le=MAX_SHARES)] = None
    """None for 1000 per vCPU."""


class DeviceMatch(Document):
    """Devices of the host; everything that is not None must be so."""

    vendor: str | None = None
    product: str | None = None
    pci_class: str | None = None
    """The PCI class or the beginning of it, in hexadecimal digits."""
    address: Annotated[str | None, Field(pattern=PCI_ADDRESS_PATTERN)] = None
    mediated_type: str | None = None


class MachineDevice(Document):
    """A device of the host. The node chooses which, of those that match, and keeps it for the guest's life."""

    name: Label
    device_class: Annotated[str, Field(max_length=127)] = ""
    """Only shown; what counts is `matches`. Empty with VIRGL."""
    mode: GpuMode = GpuMode.PASSTHROUGH
    matches: tuple[DeviceMatch, ...] = ()


class MachineKernel(Document):
    """Direct kernel boot from an image of type Kernel."""

    image_uid: Uid
    cmdline: Annotated[str, Field(max_length=2048, pattern=r"^[ -~]*$")] = ""


class CloudInitFiles(Document):
    """The files of a NoCloud medium. May hold secrets: never logged, never stored in libvirt."""

    meta_data: str
    user_data: str = ""
    network_data: str = ""

    def digest(self) -> str:
        """Return the SHA-256 of the content, which names the medium."""
        parts = (self.meta_data, self.user_data, self.network_data)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Hardware(Document):
    """What the guest sees.

    A change is applied to the running guest where QEMU can; the report names what waits for the next start.
    """

    machine_type: Annotated[str, Field(pattern=r"^(pc-)?(q35|i440fx)(-[0-9.]+)?$")] = "q35"
    sockets: Annotated[int, Field(ge=1)] = 1
    cores: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    cpu_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)] = "host-model"
    max_vcpus: Annotated[int | None, Field(gt=0)] = None
    """vCPUs the running guest may be given; None for those it starts with."""
    dedicated_cpus: bool = False
    affinity: dict[int, Annotated[str, Field(pattern=CPU_SET_PATTERN)]] = Field(default_factory=dict)
    """CPUs of the host by vCPU, as the user wants them."""
    scheduling: CpuScheduling = CpuScheduling()
    memory_bytes: Annotated[int, Field(gt=0, lt=2**63)]
    max_memory_bytes: Annotated[int | None, Field(gt=0, lt=2**63)] = None
    """Memory the running guest may be given; None for what it starts with."""
    hugepage_bytes: Annotated[int | None, Field(gt=0)] = None
    devices: tuple[MachineDevice, ...] = ()
    deferred: tuple[str, ...] = ()
    """Fields of this model that wait for the next start although a running guest could be changed; those of
    `scheduling` after a dot."""
    disks: tuple[MachineDisk, ...] = ()
    interfaces: tuple[MachineInterface, ...] = ()
    kernel: MachineKernel | None = None
    cloud_init_digest: Sha256 | None = None
    guest_agent: bool = True
    display: DisplayModel | None = None
    """The graphics card of its display; None for no display."""

    @property
    def vcpus(self) -> int:
        """Return the number of vCPUs: sockets by cores by threads."""
        return self.sockets * self.cores * self.threads

    @property
    def vcpu_ceiling(self) -> int:
        """Return the number of vCPUs the guest may be given."""
        return max(self.vcpus, self.max_vcpus or 0)

    @property
    def memory_ceiling_bytes(self) -> int:
        """Return the memory the guest may be given."""
        return max(self.memory_bytes, self.max_memory_bytes or 0)

    @property
    def own_disks(self) -> tuple[MachineDisk, ...]:
        """Return the disks that have a file of their own."""
        return tuple(disk for disk in self.disks if not disk.is_drive and not disk.is_volume)

    @property
    def volumes(self) -> tuple[MachineDisk, ...]:
        """Return the disks that are volumes of Kubernetes'."""
        return tuple(disk for disk in self.disks if disk.is_volume)

    @property
    def drives(self) -> tuple[MachineDisk, ...]:
        """Return the CD-ROM drives."""
        return tuple(disk for disk in self.disks if disk.is_drive)


class MachineRestore(Document):
    """A restore of the machine to a snapshot that this node holds, to be done once.

    A machine that the snapshot is of gets its disks back; one that is made from the snapshot has them by its sources.
    """

    token: Uid
    """Of the restore; one that has been served, or has failed, is not done again."""
    snapshot_uid: Uid
    memory: bool = True
    """Go on with the memory of the snapshot, if it has one and the machine shall run."""
    machine_id: bool = False
    """Have a guest that goes on so be given a machine-id of its own, which is its UID."""


class Machine(Document):
    """The complete desired state of a machine."""

    uid: Uid
    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    generation: int = 0
    run: Run
    restart: Restart = Restart.ALWAYS
    start_token: Annotated[str, Field(max_length=64)] = ""
    """Changed by the operator to ask for one graceful restart (or a start, if off).

    The daemon remembers the last it served; the one a machine is created with asks for nothing."""
    grace_period_seconds: Annotated[int, Field(ge=0, le=86400)] = 60
    restore: MachineRestore | None = None
    hardware: Hardware
    cloud_init: CloudInitFiles | None = None

    def without_secrets(self) -> "Machine":
        """Return the form that may be stored: the cloud-init files are gone, `hardware.cloud_init_digest` remains."""
        return self.model_copy(update={"cloud_init": None})

    def image_uids(self) -> frozenset[str]:
        """Return the UIDs of the images the node must hold before the machine can start for the first time."""
        disks = {d.source.image_uid for d in self.hardware.disks if isinstance(d.source, ImageDiskSource | IsoSource)}
        return frozenset(disks | ({self.hardware.kernel.image_uid} if self.hardware.kernel else set()))
