"""What a node daemon reports of its machines and of itself. Reports are observations; nothing in them is a wish."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.network import LinkState
from virtfleet_api.pool import DEFAULT_WATERMARK, PoolType
from virtfleet_api.virtual_machine_status import NumaPolicy

ACTION_FAILED: Final = "ActionFailed"
"""Reason of a report whose machine could not be changed as its document says; it is tried again."""

WAITING_FOR_DEVICE: Final = "WaitingForDevice"
"""Reason of PROVISIONING, or beside RUNNING, while a device of the host cannot be had."""

CLONING: Final = "Cloning"
"""Reason of PROVISIONING while disks are copied from another machine."""

RESTORING: Final = "Restoring"
"""Reason of PROVISIONING while the machine is put back to a snapshot."""

WAITING_FOR_COPIES: Final = "WaitingForCopies"
"""Reason of STOPPING while other machines copy the disks of one that shall go."""

WAITING_FOR_NETWORK: Final = "WaitingForNetwork"
"""Reason of PROVISIONING, or beside RUNNING, while the node cannot plug a card into a switch."""

WIPING: Final = "Wiping"
"""Reason of STOPPING while disks of a machine that goes are overwritten."""


class Phase(StrEnum):
    """Where a machine is. PROVISIONING, STARTING and STOPPING are passed through; the others are rested in."""

    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    CRASH_LOOP = "CrashLoopBackOff"
    FAILED = "Failed"
    ABSENT = "Absent"


class StopReason(StrEnum):
    """Why the guest last ended."""

    REQUESTED = "Requested"
    GUEST_SHUTDOWN = "GuestShutdown"
    GUEST_CRASHED = "GuestCrashed"
    QEMU_FAILED = "QemuFailed"
    NODE_RESTARTED = "NodeRestarted"


class DiskReport(Document):
    """A disk as it is on the node."""

    name: str
    pool: str
    target: str
    capacity_bytes: int
    allocated_bytes: int = 0
    """What its file takes in the pool, told again when it has moved by a step; see `steady`."""
    backing_image_uid: str | None = None
    message: str = ""
    """What goes on with it, or keeps it from being as its document says."""


class RetainedDisk(Document):
    """A disk that stays when its machine is gone."""

    name: str
    pool: str
    capacity_bytes: int
    allocated_bytes: int = 0


class InterfaceReport(Document):
    """A network card as it is, with the addresses the guest agent names."""

    name: str
    mac: str
    ip_addresses: tuple[str, ...] = ()
    port: str | None = None
    """OVN's logical switch port, with a card on a switch."""
    state: LinkState = LinkState.UP


class GuestReport(Document):
    """What the guest agent says. Bounded, and not to be trusted."""

    os: Annotated[str | None, Field(max_length=128)] = None
    kernel: Annotated[str | None, Field(max_length=128)] = None
    hostname: Annotated[str | None, Field(max_length=253)] = None


class NumaReport(Document):
    """Where a running machine lies on the host."""

    cells: tuple[int, ...]
    policy: NumaPolicy
    message: str = ""
    """Why it was moved last."""


class AssignedDevice(Document):
    """A device that a machine has."""

    name: str
    device_class: str
    address: str
    """PCI address, or UUID of a mediated device."""


class RestoreReport(Document):
    """The last restore of the machine that was begun."""

    token: str
    done: bool = False
    warm: bool = False
    """The guest goes on with the memory of the snapshot."""
    message: str = ""
    """Why it failed, with `done`: the machine is as it was before; else what goes on."""
    note: str = ""
    """What was asked for besides and could not be done; the machine is restored all the same."""


class MachineReport(Document):
    """The observed state of one machine."""

    uid: str
    namespace: str
    name: str
    generation: int = 0
    """Generation of the Machine document this report is about."""
    phase: Phase
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    restarts: int = 0
    next_start_at: datetime | None = None
    """With CRASH_LOOP: when the next start is tried."""
    last_stop: StopReason | None = None
    machine_type: str = ""
    cpu_model: str = ""
    display: str = ""
    """The graphics card of the running guest's display; empty without one."""
    vcpus: int = 0
    """Those that the running guest uses."""
    max_vcpus: int = 0
    reservation_hz: int = 0
    """What is kept of the node's CPUs for the machine, by its document or for its running guest."""
    """Those that it may be given without a restart."""
    memory_bytes: int = 0
    """What the running guest has: without what the balloon has taken back."""
    max_memory_bytes: int = 0
    """What it may be given without a restart."""
    balloon_bytes: int = 0
    """What the balloon has taken back of what the guest was started with."""
    numa: NumaReport | None = None
    devices: tuple[AssignedDevice, ...] = ()
    disks: tuple[DiskReport, ...] = ()
    interfaces: tuple[InterfaceReport, ...] = ()
    agent_connected: bool = False
    guest: GuestReport | None = None
    restart_required: tuple[str, ...] = ()
    """Spec fields (such as "disks[root].cache") that wait for the next start, some with why in parentheses, such as
    "cpu.cores (8 vCPUs, and the running guest can have 4)"."""
    held_compute: tuple[str, ...] = ()
    """What of vCPUs and memory the guest has been asked to take or give back and has not, as clauses about it."""
    held_disks: tuple[str, ...] = ()
    """Disks and drives that the guest has been asked to let go of, and holds."""
    held_interfaces: tuple[str, ...] = ()
    """Network cards that the guest has been asked to let go of, and holds."""
    held_devices: tuple[str, ...] = ()
    """Devices of the host that the guest has been asked to let go of, and holds."""
    restore: RestoreReport | None = None
    kept_disks: tuple[RetainedDisk, ...] = ()
    """With ABSENT: disks that were kept by their reclaim policy."""


class Hugepages(Document):
    """Huge pages of one size."""

    page_bytes: int
    total: int
    free: int


class NumaCell(Document):
    """A NUMA cell of the host."""

    cell: int
    cpus: str
    memory_bytes: int
    free_bytes: int = 0
    """Told again when it has moved by a step, as the load is."""
    load_percent: int = 0
    """How busy its CPUs are."""
    hugepages: tuple[Hugepages, ...] = ()
    distances: tuple[int, ...] = ()
    """To each cell, in their order; 10 to itself."""


class MediatedType(Document):
    """A type of mediated devices that a device's driver makes."""

    name: str
    available: int


class HostDevice(Document):
    """A PCI device of the host that machines may be given, or whose driver divides it for them."""

    address: str
    vendor: str
    product: str
    pci_class: str
    """Six hexadecimal digits."""
    driver: str = ""
    iommu_group: int | None = None
    numa_cell: int | None = None
    physical_function: str | None = None
    """Address of the device that this is a virtual function of."""
    mediated_types: tuple[MediatedType, ...] = ()
    used_by: tuple[str, ...] = ()
    """UIDs of machines that have it, or parts of it: once for each part."""
    problem: str = ""
    """Why no machine can be given it whole."""


class PoolReport(Document):
    """A storage pool of the node. One that cannot be used has no capacity and a problem."""

    name: str
    type: PoolType = PoolType.DIRECTORY
    capacity_bytes: int
    free_bytes: int
    committed_bytes: int = 0
    """Sizes that guests see of all disks in it."""
    limit_bytes: int | None = None
    """What may be committed; None for any number."""
    watermark: str = DEFAULT_WATERMARK
    nearly_full: bool = False
    """It is above its watermark and takes nothing new."""
    leaving: bool = False
    """Nobody wants it any more; it takes nothing new and goes once it is empty."""
    reflink: bool = False
    """Its file system copies files without copying their data."""
    problem: str = ""
    """Why it is not, or not only, as the administrator wants it."""


class UplinkReport(Document):
    """A physical network of the node."""

    interface: str
    problem: str = ""
    """Why it is not connected; empty when it is."""


class NetworkReport(Document):
    """The node's Open vSwitch and ovn-controller."""

    connected: bool
    """ovn-controller is connected to the southbound database."""
    tunnel_address: str = ""
    datapath: str = ""
    """system, or netdev for the one in user space."""
    uplinks: tuple[UplinkReport, ...] = ()
    firewall: bool = False
    """The node's own firewall is in place."""
    problem: str = ""


class NodeReport(Document):
    """Inventory of the node, as `GET /v1/node` and the watch stream give it."""

    name: str
    daemon_version: str
    libvirt_version: str
    qemu_version: str
    hypervisor: str
    """kvm, or qemu where KVM does not work."""
    architecture: str
    cpu_models: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=512)] = ()
    """What `cpu.model` may say on this node, host-passthrough among it; empty where it is not known."""
    cpus: int
    cpu_frequency_hz: int
    memory_bytes: int
    numa: tuple[NumaCell, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    render_node: bool = False
    """The host's GPU draws for guests (/dev/dri/renderD*)."""
    pools: tuple[PoolReport, ...] = ()
    labels: Annotated[dict[str, str], Field(default_factory=dict)]
    hypervisor_connected: bool = True
    """False while libvirtd does not answer; machines are then as they were last seen."""
    network: NetworkReport | None = None
    """None where the node has no Open vSwitch."""
    copy_port: Annotated[int | None, Field(ge=0, le=65535)] = None
    """Where other nodes copy images from, at the host of the node's address."""
