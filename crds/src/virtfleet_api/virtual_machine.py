"""The kind VirtualMachine. Field descriptions are the reference documentation (`kubectl explain vm.spec`)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from virtfleet_api.base import ATOMIC, Model
from virtfleet_api.compute import Cpu, Memory
from virtfleet_api.device import Gpu, HostDevice
from virtfleet_api.display import Display
from virtfleet_api.io_tune import IoTune
from virtfleet_api.names import DEFAULT_POOL, DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.network import Network
from virtfleet_api.quantity import Bytes
from virtfleet_api.resource import PrinterColumn, Resource
from virtfleet_api.scheduling import Affinity, Toleration
from virtfleet_api.secret_reference import SecretReference
from virtfleet_api.virtual_machine_status import VirtualMachineStatus


class RunStrategy(StrEnum):
    """Who decides whether the machine runs."""

    ALWAYS = "Always"
    RERUN_ON_FAILURE = "RerunOnFailure"
    MANUAL = "Manual"
    HALTED = "Halted"
    ONCE = "Once"


class PowerState(StrEnum):
    """The state asked for while the run strategy lets the machine run."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"


class DiskBus(StrEnum):
    """The controller a disk hangs on; CDROM is a drive, on SATA, whose medium may change."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    CDROM = "cdrom"


class DiskCache(StrEnum):
    """QEMU's cache mode of a disk."""

    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"


class Clone(StrEnum):
    """How a disk is made from an image or from another disk."""

    LINKED = "Linked"
    FULL = "Full"


class ReclaimPolicy(StrEnum):
    """What becomes of a disk when its machine is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"
    WIPE = "Wipe"


class ImageReference(Model):
    """A VMImage, in this namespace unless another is named."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="Name of the VMImage.")]
    namespace: Annotated[
        str | None,
        Field(
            pattern=DNS_LABEL_PATTERN,
            max_length=63,
            description="Its namespace; the image must be `shared` when it is not the machine's own.",
        ),
    ] = None


class Blank(Model):
    """An empty disk."""


class DiskReference(Model):
    """A disk of another VirtualMachine of this namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    virtual_machine: Annotated[
        str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="Name of the VirtualMachine.")
    ]
    name: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name of the disk in that machine.")
    ]


class VMDiskReference(Model):
    """A VMDisk of this namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="Name of the VMDisk.")]


class SnapshotDiskReference(Model):
    """A disk of a VMSnapshot of this namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="Name of the VMSnapshot.")]
    disk: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name of the disk in that snapshot.")
    ]


class ClaimReference(Model):
    """A PersistentVolumeClaim of this namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    claim_name: Annotated[
        str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="Name of the PersistentVolumeClaim.")
    ]


class DiskSource(Model):
    """Where a disk's content comes from: exactly one of `image`, `disk`, `vmDisk`, `snapshot`, `blank` and `pvc`.

    A drive (`bus: cdrom`) has `iso`, or nothing when it is empty.
    """

    image: Annotated[ImageReference | None, Field(description="Start from this VMImage.")] = None
    disk: Annotated[
        DiskReference | None,
        Field(description="Start from a copy of another machine's disk, taken while that machine runs or is off."),
    ] = None
    vm_disk: Annotated[
        VMDiskReference | None,
        Field(
            alias="vmDisk",
            description="Take over this disk, which was kept when its machine was deleted; the VMDisk goes once the "
            "machine has it.",
        ),
    ] = None
    snapshot: Annotated[
        SnapshotDiskReference | None,
        Field(description="Start from a disk as a VMSnapshot has it; it is on the snapshot's node and in its pool."),
    ] = None
    blank: Annotated[Blank | None, Field(description="Start empty; needs `size`.")] = None
    pvc: Annotated[
        ClaimReference | None,
        Field(
            description="Use the volume of this PersistentVolumeClaim: a block volume as it is, of one with a file "
            "system the file disk.img, which is made when it is missing. The claim is never deleted with the machine."
        ),
    ] = None
    iso: Annotated[
        ImageReference | None,
        Field(description="VMImage of type ISO in the drive, with bus cdrom; take it out to eject it."),
    ] = None
    clone: Annotated[
        Clone | None,
        Field(
            description="Linked (default): a difference file on the shared image; a copy of another machine's disk "
            "shares that disk's image, never the disk. Full: an independent copy."
        ),
    ] = None


class Disk(Model):
    """A disk of the machine."""

    name: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name, unique within the machine.")
    ]
    boot_order: Annotated[
        int | None, Field(ge=1, le=64, description="1 boots first; by default the order of the list.")
    ] = None
    size: Annotated[Bytes | None, Field(description="Size; at least the image's, and the image's by default.")] = None
    source: Annotated[DiskSource, Field(description="First content, or the medium of a drive.")]
    pool: Annotated[
        str,
        Field(
            pattern=DNS_LABEL_PATTERN,
            max_length=63,
            description="Storage pool of the node that holds the disk.",
        ),
    ] = DEFAULT_POOL
    bus: Annotated[DiskBus, Field(description="Controller: virtio, scsi or sata; cdrom for a drive.")] = DiskBus.VIRTIO
    cache: Annotated[DiskCache, Field(description="QEMU cache mode.")] = DiskCache.NONE
    io_tune: Annotated[
        IoTune | None,
        Field(description="Limits of requests and bytes a second; the VMClass's when absent, none when empty."),
    ] = None
    reclaim_policy: Annotated[
        ReclaimPolicy,
        Field(description="Delete, Retain, or Wipe (overwrite, then delete) the disk when the machine is deleted."),
    ] = ReclaimPolicy.DELETE


class CloudInit(Model):
    """First-boot configuration, given to the guest as a NoCloud medium."""

    user_data: Annotated[
        str | None, Field(max_length=65536, description="cloud-init user data, such as #cloud-config.")
    ] = None
    network_data: Annotated[
        str | None, Field(max_length=65536, description="cloud-init network configuration, version 1 or 2.")
    ] = None
    secret_ref: Annotated[
        SecretReference | None,
        Field(description="Secret with keys userData and, if wanted, networkData; instead of writing them here."),
    ] = None


class KernelBoot(Model):
    """Start a kernel directly, without a boot loader."""

    image: Annotated[ImageReference, Field(description="A VMImage of type Kernel.")]
    cmdline: Annotated[
        str,
        Field(max_length=2048, pattern=r"^[ -~]*$", description="Kernel command line, printable ASCII."),
    ] = ""


class VirtualMachineSpec(Model):
    """What the user wants."""

    run_strategy: Annotated[
        RunStrategy,
        Field(
            description="Always: restart whenever it stops. RerunOnFailure: restart after a crash, stay off after a "
            "shutdown in the guest. Manual: follow powerState. Halted: off. Once: run to its end once.",
        ),
    ] = RunStrategy.ALWAYS
    power_state: Annotated[
        PowerState | None,
        Field(description="Running (default), Paused, or (with runStrategy Manual) Stopped."),
    ] = None
    restart_requested_at: Annotated[
        datetime | None,
        Field(description="A newer time than the last restart asks for a graceful restart (`kubectl vm restart`)."),
    ] = None
    class_name: Annotated[
        str | None,
        Field(
            pattern=DNS_SUBDOMAIN_PATTERN,
            max_length=253,
            description="VMClass that sizes what is absent here.",
        ),
    ] = None
    termination_grace_period_seconds: Annotated[
        int,
        Field(ge=0, le=86400, description="How long the guest may take to shut down before it is switched off."),
    ] = 60
    cpu: Annotated[Cpu, Field(description="Virtual CPUs.")] = Cpu()
    memory: Annotated[Memory, Field(description="Guest memory.")] = Memory()
    machine_type: Annotated[
        str,
        Field(pattern=r"^(pc-)?(q35|i440fx)(-[0-9.]+)?$", max_length=32, description="QEMU machine type."),
    ] = "q35"
    disks: Annotated[tuple[Disk, ...], Field(max_length=32, description="Disks.")] = ()
    networks: Annotated[tuple[Network, ...], Field(max_length=8, description="Network cards.")] = ()
    gpus: Annotated[tuple[Gpu, ...], Field(max_length=16, description="GPUs.")] = ()
    host_devices: Annotated[
        tuple[HostDevice, ...], Field(max_length=16, description="Other PCI devices of the host.")
    ] = ()
    cloud_init: Annotated[CloudInit | None, Field(description="First-boot configuration.")] = None
    kernel_boot: Annotated[KernelBoot | None, Field(description="Direct kernel boot.")] = None
    display: Annotated[
        Display | None,
        Field(
            description="A display, for `kubectl vm vnc`; `{}` is enough. Without it there is the serial console alone."
        ),
    ] = None
    guest_agent: Annotated[bool, Field(description="Give the guest a channel for the QEMU guest agent.")] = True
    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(
            default_factory=dict,
            max_length=32,
            description="Labels that the VMNode must carry.",
            json_schema_extra=ATOMIC,
        ),
    ]
    affinity: Annotated[Affinity | None, Field(description="Nodes, and machines to be near to or far from.")] = None
    tolerations: Annotated[
        tuple[Toleration, ...], Field(max_length=32, description="Taints of nodes that the machine does not mind.")
    ] = ()


class VirtualMachine(Resource):
    """A virtual machine."""

    plural: ClassVar[str] = "virtualmachines"
    short_names: ClassVar[tuple[str, ...]] = ("vm", "vms")
    categories: ClassVar[tuple[str, ...]] = ("virtfleet", "all")
    name_max_length: ClassVar[int] = 63  # it becomes the guest's host name, one DNS label long (RFC 1123)
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Status", json_path=".status.printableStatus"),
        PrinterColumn(name="Ready", json_path=".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn(name="Node", json_path=".status.nodeName"),
        PrinterColumn(name="IP", json_path=".status.interfaces[0].ipAddresses[0]"),
        PrinterColumn(name="vCPU", type="integer", json_path=".status.machine.vcpus.current"),
        PrinterColumn(name="Memory", json_path=".status.machine.memory.current"),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VirtualMachine"
    spec: VirtualMachineSpec
    status: VirtualMachineStatus = VirtualMachineStatus()
