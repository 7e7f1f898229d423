"""The steps of a plan, as values. Each is idempotent, and any that was planned may be lost."""

from dataclasses import dataclass
from enum import StrEnum

from virtfleet_api.machine import MachineDevice, MachineDisk, MachineInterface, VolumeSource
from virtfleet_api.network import LinkState
from virtfleet_node.core.compute_actions import MemoryAction, VcpuAction
from virtfleet_node.core.limit_actions import LimitCard, LimitCpu
from virtfleet_node.core.numa.pin import Pin
from virtfleet_node.core.record import Record
from virtfleet_node.core.restore_actions import RestoreAction


class ShutdownMode(StrEnum):
    """How a guest is asked to shut down."""

    ACPI = "acpi"
    AGENT = "agent"


@dataclass(frozen=True)
class WriteRecord:
    """Keep what the daemon has learnt."""

    record: Record

    def __str__(self) -> str:
        """Say it in words."""
        return f"write record ({self.record.life}, {self.record.failures} failures)"


@dataclass(frozen=True)
class PrepareDisk:
    """Make a disk that is missing."""

    disk: MachineDisk

    def __str__(self) -> str:
        """Say it in words."""
        return f"prepare disk {self.disk.pool}/{self.disk.name}"


@dataclass(frozen=True)
class PrepareVolume:
    """Make the file in a volume of Kubernetes' that has none, and let QEMU reach it."""

    name: str
    source: VolumeSource
    size_bytes: int | None

    def __str__(self) -> str:
        """Say it in words."""
        return f"prepare the volume of claim {self.source.claim} for disk {self.name}"


@dataclass(frozen=True)
class CloneDisks:
    """Copy disks of another machine, all as they are at one moment. Goes on beside the plans until it is done."""

    source_uid: str
    disks: tuple[MachineDisk, ...]

    def __str__(self) -> str:
        """Say it in words."""
        return f"clone {', '.join(disk.name for disk in self.disks)} from disks of machine {self.source_uid}"


@dataclass(frozen=True)
class FlattenDisk:
    """Make a disk independent of its image and of other machines. Goes on beside the plans until it is done."""

    pool: str
    name: str
    target: str | None
    """Device name in the running guest; None when it is off."""

    def __str__(self) -> str:
        """Say it in words."""
        return f"make disk {self.pool}/{self.name} independent of its image"


@dataclass(frozen=True)
class MergeLayers:
    """Remove and merge layers of disks that nobody names. Goes on beside the plans until none is left."""

    def __str__(self) -> str:
        """Say it in words."""
        return "merge layers of disks"


@dataclass(frozen=True)
class WipeDisk:
    """Overwrite a disk and remove it for good. Goes on beside the plans until it is done."""

    pool: str
    name: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"wipe disk {self.pool}/{self.name}"


@dataclass(frozen=True)
class GrowDisk:
    """Make a disk larger that no guest uses."""

    disk: MachineDisk

    def __str__(self) -> str:
        """Say it in words."""
        return f"grow disk {self.disk.pool}/{self.disk.name} to {self.disk.size_bytes} bytes"


@dataclass(frozen=True)
class Start:
    """Define the domain from the document and start it."""

    record: Record
    """Kept with the definition, before the start."""
    paused: bool = False

    def __str__(self) -> str:
        """Say it in words."""
        return "start paused" if self.paused else "start"


@dataclass(frozen=True)
class Pause:
    """Stop the virtual CPUs."""

    def __str__(self) -> str:
        """Say it in words."""
        return "pause"


@dataclass(frozen=True)
class Resume:
    """Let the virtual CPUs run."""

    def __str__(self) -> str:
        """Say it in words."""
        return "resume"


@dataclass(frozen=True)
class RequestShutdown:
    """Ask the guest to shut down."""

    mode: ShutdownMode

    def __str__(self) -> str:
        """Say it in words."""
        return f"request shutdown by {self.mode}"


@dataclass(frozen=True)
class Destroy:
    """Switch the guest off."""

    def __str__(self) -> str:
        """Say it in words."""
        return "destroy"


@dataclass(frozen=True)
class LimitDisk:
    """Change the limits of a running guest's disk."""

    target: str
    tuning: tuple[tuple[str, int | str], ...]

    def __str__(self) -> str:
        """Say it in words."""
        limits = ", ".join(f"{name}={value}" for name, value in self.tuning if value)
        return f"limit disk {self.target} ({limits})"


@dataclass(frozen=True)
class ResizeDisk:
    """Make a running guest's disk larger."""

    target: str
    size_bytes: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"resize disk {self.target} to {self.size_bytes} bytes"


@dataclass(frozen=True)
class AttachDisk:
    """Give a disk that is there to a running guest."""

    disk: MachineDisk

    def __str__(self) -> str:
        """Say it in words."""
        return f"attach disk {self.disk.pool}/{self.disk.name}"


@dataclass(frozen=True)
class DetachDisk:
    """Ask a running guest to let go of a disk."""

    target: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"detach disk {self.target}"


@dataclass(frozen=True)
class ChangeMedium:
    """Ask a running guest to let the medium in a drive be changed."""

    target: str
    drive: MachineDisk

    def __str__(self) -> str:
        """Say it in words."""
        return f"insert {self.drive.medium_uid or 'nothing'} into drive {self.target}"


@dataclass(frozen=True)
class AttachCard:
    """Give a network card to a running guest."""

    interface: MachineInterface

    def __str__(self) -> str:
        """Say it in words."""
        return f"attach network card {self.interface.name}"


@dataclass(frozen=True)
class DetachCard:
    """Ask a running guest to let go of a network card."""

    alias: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"detach network card {self.alias}"


@dataclass(frozen=True)
class AttachDevice:
    """Choose a device of the host for a running guest, and give it."""

    device: MachineDevice

    def __str__(self) -> str:
        """Say it in words."""
        return f"attach device {self.device.name} ({self.device.device_class})"


@dataclass(frozen=True)
class DetachDevice:
    """Ask a running guest to let go of a device of the host."""

    alias: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"detach device {self.alias}"


@dataclass(frozen=True)
class SetLink:
    """Plug in or pull the cable of a running guest's network card."""

    alias: str
    state: LinkState

    def __str__(self) -> str:
        """Say it in words."""
        return f"set link of network card {self.alias} {self.state}"


@dataclass(frozen=True)
class RemoveDisk:
    """Remove a disk for good."""

    pool: str
    name: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"remove disk {self.pool}/{self.name}"


@dataclass(frozen=True)
class RemoveMedia:
    """Remove cloud-init media and the console's log."""

    def __str__(self) -> str:
        """Say it in words."""
        return "remove media"


@dataclass(frozen=True)
class Undefine:
    """Remove the domain, and with it all memory of the machine."""

    def __str__(self) -> str:
        """Say it in words."""
        return "undefine"


CardAction = DetachCard | SetLink | LimitCard

PowerAction = Pause | Resume | RequestShutdown | Destroy

DiskChange = LimitDisk | ResizeDisk | DetachDisk

DomainAction = PowerAction | DiskChange | DetachDevice | CardAction | LimitCpu | VcpuAction | MemoryAction | Undefine
"""Actions that the hypervisor carries out as they are."""

LongAction = CloneDisks | FlattenDisk | MergeLayers | WipeDisk
"""Actions that take minutes or hours: begun when planned, left alone while still planned, ended when not."""

DiskAction = PrepareDisk | PrepareVolume | GrowDisk | AttachDisk | ChangeMedium | RemoveDisk
"""Actions for which files are looked up."""

ShortAction = (
    WriteRecord | Start | DomainAction | DiskAction | AttachCard | AttachDevice | Pin | RemoveMedia | RestoreAction
)
"""Actions that are over when they have been carried out."""

Action = ShortAction | LongAction
