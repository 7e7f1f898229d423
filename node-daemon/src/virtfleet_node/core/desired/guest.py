"""What a domain is built from: the machine's hardware, the facts of the host, and paths that are already resolved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import Hardware, Machine
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.host_cpu import HostCpu
from virtfleet_node.core.numa.pins import GuestCell, Pinning
from virtfleet_node.core.places import Places, needs_memory_device


class DomainType(StrEnum):
    """libvirt's domain types that the daemon uses."""

    KVM = "kvm"
    QEMU = "qemu"
    TEST = "test"


@dataclass(frozen=True)
class HostFacts:
    """What every domain of this host has in common."""

    domain_type: DomainType
    emulator: str | None
    """Path of QEMU; None with the test driver."""
    arch: str = "x86_64"
    cpu_models: tuple[str, ...] = ()
    """CPU models that guests can have, host-passthrough among them; empty with the test driver."""
    cpu: HostCpu = field(default_factory=HostCpu)
    qemu_user: int | None = None
    """Number of the user that QEMU runs as; None where libvirt does not say."""
    render_node: str = ""
    """Device by which the host's GPU draws for guests; empty where there is none."""


@dataclass(frozen=True)
class FileLayer:
    """One file of a disk's chain."""

    path: Path
    format: ImageFormat


@dataclass(frozen=True)
class ResolvedDisk:
    """A disk's own file and what it is backed by. Declared in full, so that nothing is ever probed from content."""

    file: FileLayer
    backing: tuple[FileLayer, ...] = ()
    is_device: bool = False
    """It is a block device of the host's."""


@dataclass(frozen=True)
class ResolvedPaths:
    """Every host path of a domain."""

    console_log: Path
    disks: Mapping[str, ResolvedDisk] = field(default_factory=dict)
    media: Mapping[str, Path] = field(default_factory=dict)
    """What is in the drives, by name; empty ones are not named."""
    kernel: Path | None = None
    initrd: Path | None = None
    cloud_init: Path | None = None


@dataclass(frozen=True)
class Guest:
    """Input of every configurator."""

    machine: Machine
    facts: HostFacts
    paths: ResolvedPaths
    places: Places
    user_space_switch: bool = False
    """Open vSwitch's datapath is the one in user space."""
    devices: tuple[ChosenDevice, ...] = ()
    """Devices of the host that were chosen for it."""
    pinning: Pinning | None = None
    """Where it runs on the host; None for anywhere."""
    cells: tuple[GuestCell, ...] = ()
    """Cells of the host's that it sees as its own; none for an ordinary guest."""

    @property
    def hardware(self) -> Hardware:
        """Return what the guest sees."""
        return self.machine.hardware

    @property
    def is_q35(self) -> bool:
        """Tell whether the machine type has PCI Express."""
        return "q35" in self.hardware.machine_type

    @property
    def is_test(self) -> bool:
        """Tell whether this is for libvirt's test driver, which has neither devices nor guests."""
        return self.facts.domain_type is DomainType.TEST

    @property
    def has_memory_device(self) -> bool:
        """Tell whether the running guest may be given more memory."""
        return needs_memory_device(self.hardware) and not self.is_test
