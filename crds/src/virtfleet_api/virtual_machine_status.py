"""The status of a VirtualMachine: what is, as its node reports it, written by the operator alone."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.conditions import Condition
from virtfleet_api.network import LinkState
from virtfleet_api.quantity import Bytes, Frequency


class PrintableStatus(StrEnum):
    """The one word that `kubectl get vm` shows."""

    PROVISIONING = "Provisioning"
    SCHEDULING = "Scheduling"
    STARTING = "Starting"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    CRASHED = "Crashed"
    TERMINATING = "Terminating"
    UNSCHEDULABLE = "Unschedulable"
    INVALID = "Invalid"
    UNKNOWN = "Unknown"


class NumaPolicy(StrEnum):
    """How a machine lies on its host's NUMA cells."""

    BOUND = "Bound"
    SPREAD = "Spread"
    PINNED = "Pinned"


class VcpuStatus(Model):
    """Virtual CPUs as the hypervisor runs them."""

    current: Annotated[int, Field(description="vCPUs that the running guest uses.")]
    max: Annotated[int, Field(description="vCPUs the guest may be given without a restart.")]


class MemoryStatus(Model):
    """Memory as the hypervisor runs it."""

    current: Annotated[Bytes, Field(description="Memory that the running guest has.")]
    balloon: Annotated[
        Bytes | None,
        Field(
            description="What the balloon has taken back of what the guest started with; absent when it has nothing."
        ),
    ] = None
    max: Annotated[Bytes | None, Field(description="Memory the guest may be given without a restart.")] = None


class NumaStatus(Model):
    """Where the machine runs on its host."""

    cells: Annotated[tuple[int, ...], Field(description="NUMA cells of the host that CPUs and memory come from.")]
    policy: Annotated[
        NumaPolicy,
        Field(
            description="Bound: to one cell, which may change with the load. Spread: evenly over several. Pinned: to "
            "the cells of the CPUs that the spec names."
        ),
    ]
    message: Annotated[str | None, Field(description="Why the node moved it last.")] = None


class MachineStatus(Model):
    """The machine as its node runs it."""

    uuid: Annotated[str, Field(description="UUID of the libvirt domain: the object's UID.")]
    machine_type: Annotated[str, Field(description="QEMU machine type, with its version.")]
    cpu_model: Annotated[str, Field(description="CPU model given to the guest.")]
    display: Annotated[
        str | None, Field(description="Graphics card of the running guest's display, which `kubectl vm vnc` shows.")
    ] = None
    vcpus: Annotated[VcpuStatus, Field(description="Virtual CPUs.")]
    memory: Annotated[MemoryStatus, Field(description="Memory.")]
    reservation: Annotated[
        Frequency | None, Field(description="What the node keeps of its CPUs for the machine; absent for nothing.")
    ] = None
    numa: Annotated[NumaStatus | None, Field(description="Where it runs on its host.")] = None
    restarts: Annotated[int, Field(description="Starts after a crash since the machine last ran steadily.")] = 0
    started_at: Annotated[datetime | None, Field(description="When the guest was last started.")] = None


class DiskStatus(Model):
    """A disk as it is."""

    name: Annotated[str, Field(description="Name in the spec.")]
    pool: Annotated[str, Field(description="Pool that holds it.")]
    capacity: Annotated[Bytes, Field(description="Size the guest sees.")]
    allocated: Annotated[
        Bytes | None,
        Field(description="What it takes in the pool; written again when it has moved by 16 MiB and by 5 %."),
    ] = None
    backing: Annotated[str | None, Field(description="UID of the VMImage that a linked clone needs.")] = None
    target: Annotated[str, Field(description="Device name in the domain, such as vda.")]
    message: Annotated[
        str | None, Field(description="What goes on with it, such as how far it is made independent of its image.")
    ] = None


class InterfaceStatus(Model):
    """A network card as it is."""

    name: Annotated[str, Field(description="Name in the spec.")]
    mac: Annotated[str, Field(description="MAC address.")]
    ip_addresses: Annotated[
        tuple[str, ...], Field(description="Addresses the switch assigned, then others that the guest agent reports.")
    ] = ()
    switch: Annotated[str | None, Field(description="VirtualSwitch that it is plugged into.")] = None
    port: Annotated[str | None, Field(description="OVN's logical switch port.")] = None
    state: Annotated[LinkState | None, Field(description="up or down, as the running guest has it.")] = None


class DeviceStatus(Model):
    """A device of the host that the machine has."""

    name: Annotated[str, Field(description="Name in the spec.")]
    device: Annotated[str, Field(description="Its class.")]
    address: Annotated[str, Field(description="PCI address on the host, or UUID of a mediated device.")]


class GuestStatus(Model):
    """What the guest agent says of the guest; not to be trusted, only shown."""

    os: Annotated[str | None, Field(description="Operating system.")] = None
    kernel: Annotated[str | None, Field(description="Kernel release.")] = None
    hostname: Annotated[str | None, Field(description="Host name.")] = None


class VirtualMachineStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    printable_status: Annotated[PrintableStatus | None, Field(description="The state in one word.")] = None
    node_name: Annotated[str | None, Field(description="VMNode that runs it.")] = None
    machine: Annotated[MachineStatus | None, Field(description="The machine as its node runs it.")] = None
    disks: Annotated[tuple[DiskStatus, ...], Field(description="Disks.")] = ()
    interfaces: Annotated[tuple[InterfaceStatus, ...], Field(description="Network cards.")] = ()
    devices: Annotated[tuple[DeviceStatus, ...], Field(description="Devices of the host that the guest has.")] = ()
    guest: Annotated[GuestStatus | None, Field(description="What the guest says of itself.")] = None
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()
