"""The kind VMNode: a hypervisor of the fleet. The operator creates one for each enrolled daemon."""

from typing import Annotated, ClassVar

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.conditions import Condition
from virtfleet_api.device import DeviceClassRule
from virtfleet_api.names import DNS_LABEL_PATTERN
from virtfleet_api.pool import DEFAULT_WATERMARK, OVERCOMMIT_PATTERN, POOL_PATH_PATTERN, WATERMARK_PATTERN, PoolType
from virtfleet_api.quantity import Bytes, Frequency
from virtfleet_api.resource import PrinterColumn, Resource
from virtfleet_api.scheduling import Taint


class Overcommit(Model):
    """How much more may be promised to machines than the node has."""

    cpu: Annotated[
        str,
        Field(pattern=r"^[1-9][0-9]?(\.[0-9]{1,2})?$", max_length=5, description='vCPUs per host CPU, such as "4".'),
    ] = "4"
    memory: Annotated[
        str,
        Field(
            pattern=r"^[1-9](\.[0-9]{1,2})?$", max_length=4, description='Guest memory per host memory, such as "1.5".'
        ),
    ] = "1"


class SystemReserved(Model):
    """What machines are never given."""

    memory: Annotated[Bytes | None, Field(description='Memory kept for the host, such as "1Gi".')] = None


class NodePool(Model):
    """A storage pool that the node shall have beside those of its configuration file."""

    name: Annotated[
        str,
        Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name that disks and images use."),
    ]
    type: Annotated[
        PoolType,
        Field(
            description=(
                "Directory belongs to this node; Shared is one directory that several nodes see under the same path, "
                "on a file system that an administrator has mounted."
            )
        ),
    ] = PoolType.DIRECTORY
    path: Annotated[
        str,
        Field(
            pattern=POOL_PATH_PATTERN,
            max_length=255,
            description="Directory on the node, below one of the poolRoots of its configuration file.",
        ),
    ]
    overcommit: Annotated[
        str | None,
        Field(
            pattern=OVERCOMMIT_PATTERN,
            max_length=6,
            description='Disk sizes that may be promised per size of the pool, such as "2.5"; absent for any.',
        ),
    ] = None
    watermark: Annotated[
        str,
        Field(
            pattern=WATERMARK_PATTERN,
            max_length=4,
            description="Share in use from which the pool takes no new disks and images.",
        ),
    ] = DEFAULT_WATERMARK


class VMNodeSpec(Model):
    """What the administrator wants."""

    overcommit: Annotated[Overcommit, Field(description="Promise more than the node has.")] = Overcommit()
    system_reserved: Annotated[SystemReserved, Field(description="Keep this for the host.")] = SystemReserved()
    maintenance: Annotated[bool, Field(description="Take no new machines; those that are there go on.")] = False
    taints: Annotated[
        tuple[Taint, ...], Field(max_length=32, description="Keep machines off that do not tolerate them.")
    ] = ()
    devices: Annotated[
        tuple[DeviceClassRule, ...],
        Field(max_length=64, description="Classes of devices that machines may be given."),
    ] = ()
    pools: Annotated[
        tuple[NodePool, ...],
        Field(max_length=32, description="Storage pools beside those of the node's configuration file."),
    ] = ()


class NodeVersions(Model):
    """Software of the node."""

    daemon: Annotated[str, Field(description="virtfleet's node daemon.")]
    libvirt: Annotated[str, Field(description="libvirt.")]
    qemu: Annotated[str, Field(description="QEMU.")]


class NodeResources(Model):
    """CPUs and memory."""

    cpus: Annotated[int, Field(description="CPUs.")]
    memory: Annotated[Bytes | None, Field(description="Memory.")] = None
    reserved: Annotated[Frequency | None, Field(description="CPU frequency for reservations.")] = None


class NumaCellStatus(Model):
    """A NUMA cell of the host."""

    cell: Annotated[int, Field(description="Number of the cell.")]
    cpus: Annotated[str, Field(description='Its CPUs, such as "0-7,16-23".')]
    memory: Annotated[Bytes, Field(description="Its memory.")]
    free: Annotated[Bytes | None, Field(description="Free memory; written again when it has moved by 5 %.")] = None
    load: Annotated[str | None, Field(description='How busy its CPUs are, such as "40%".')] = None


class NodeDeviceStatus(Model):
    """A device that machines may be given."""

    device: Annotated[str, Field(description="Its class.")]
    address: Annotated[str, Field(description="PCI address.")]
    iommu_group: Annotated[int | None, Field(description="IOMMU group; devices of one group go together.")] = None
    numa: Annotated[int | None, Field(description="NUMA cell that it is near to.")] = None
    used_by: Annotated[
        str | None, Field(description="Machine that has it, or machines that have parts of it, as namespace/name.")
    ] = None
    available: Annotated[int | None, Field(description="Mediated devices that may still be made of it.")] = None
    problem: Annotated[str | None, Field(description="Why no machine can be given it.")] = None


class PoolStatus(Model):
    """A storage pool of the node."""

    name: Annotated[str, Field(description="Name that disks and images use.")]
    type: Annotated[PoolType, Field(description="Directory, or Shared with other nodes.")] = PoolType.DIRECTORY
    capacity: Annotated[Bytes | None, Field(description="Size of the file system; absent when it cannot be read.")] = (
        None
    )
    free: Annotated[Bytes | None, Field(description="Free space; written again when it has moved by 5 %.")] = None
    committed: Annotated[Bytes | None, Field(description="Sizes that guests see of all disks in it.")] = None
    committable: Annotated[Bytes | None, Field(description="What may be committed; absent for any.")] = None
    nearly_full: Annotated[
        bool, Field(description="It is above its watermark and takes no new disks and images; those that exist go on.")
    ] = False
    reflink: Annotated[bool, Field(description="Its file system copies images without copying their data.")] = False
    problem: Annotated[str | None, Field(description="Why it is not as the spec wants it.")] = None


class VMNodeStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    address: Annotated[str | None, Field(description="host:port of the daemon.")] = None
    tunnel_address: Annotated[str | None, Field(description="Where the node's tunnels to other nodes end.")] = None
    hypervisor: Annotated[str | None, Field(description="kvm, or qemu where KVM does not work.")] = None
    versions: Annotated[NodeVersions | None, Field(description="Software of the node.")] = None
    cpu_frequency: Annotated[Frequency | None, Field(description="Nominal frequency of one CPU.")] = None
    capacity: Annotated[NodeResources | None, Field(description="What the host has.")] = None
    allocatable: Annotated[NodeResources | None, Field(description="What may be promised to machines.")] = None
    allocated: Annotated[NodeResources | None, Field(description="What is promised to machines.")] = None
    numa: Annotated[tuple[NumaCellStatus, ...], Field(description="NUMA cells.")] = ()
    devices: Annotated[tuple[NodeDeviceStatus, ...], Field(description="Devices that machines may be given.")] = ()
    pools: Annotated[tuple[PoolStatus, ...], Field(description="Storage pools.")] = ()
    machines: Annotated[int, Field(description="Machines bound to the node.")] = 0
    orphans: Annotated[
        tuple[str, ...],
        Field(description="UIDs of machines on the node without an object; kept until an administrator removes them."),
    ] = ()
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class VMNode(Resource):
    """A hypervisor of the fleet."""

    plural: ClassVar[str] = "vmnodes"
    short_names: ClassVar[tuple[str, ...]] = ("vmn",)
    namespaced: ClassVar[bool] = False
    name_max_length: ClassVar[int] = 63  # it is the value of the binding label, and label values are no longer
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Ready", json_path=".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn(name="Scheduling", json_path=".status.conditions[?(@.type=='Schedulable')].reason"),
        PrinterColumn(name="Hypervisor", json_path=".status.hypervisor"),
        PrinterColumn(name="CPUs", type="integer", json_path=".status.capacity.cpus"),
        PrinterColumn(name="Memory", json_path=".status.capacity.memory"),
        PrinterColumn(name="Machines", type="integer", json_path=".status.machines"),
        PrinterColumn(name="Address", json_path=".status.address", priority=1),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VMNode"
    spec: VMNodeSpec = VMNodeSpec()
    status: VMNodeStatus = VMNodeStatus()
