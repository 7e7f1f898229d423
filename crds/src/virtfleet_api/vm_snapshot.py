"""The kind VMSnapshot: a machine's disks, and its memory, as they were at one instant."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field, WithJsonSchema

from virtfleet_api.base import Model
from virtfleet_api.conditions import Condition
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.quantity import Bytes
from virtfleet_api.resource import PrinterColumn, Resource
from virtfleet_api.virtual_machine import VirtualMachineSpec

MAX_SNAPSHOTS: Final = 32
"""Of one machine: each is a file below its disks, and QEMU reads through all of them."""


class SnapshotMode(StrEnum):
    """What is captured."""

    MEMORY = "Memory"
    DISK = "Disk"


class SnapshotDeletionPolicy(StrEnum):
    """What becomes of a snapshot when its machine is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class SnapshotPhase(StrEnum):
    """How far a snapshot has come."""

    PENDING = "Pending"
    CAPTURING = "Capturing"
    READY = "Ready"
    FAILED = "Failed"
    DELETING = "Deleting"


class SnapshotIndication(StrEnum):
    """How a snapshot was captured, and what can be relied on.

    ONLINE: of a running guest. OFFLINE: the machine was off. MEMORY: the memory is in it. GUEST_AGENT: the guest's file
    systems were frozen meanwhile. CRASH_CONSISTENT: without memory or freeze, as after a power failure.
    """

    ONLINE = "Online"
    OFFLINE = "Offline"
    MEMORY = "Memory"
    GUEST_AGENT = "GuestAgent"
    CRASH_CONSISTENT = "CrashConsistent"


class VMSnapshotSpec(Model):
    """What to capture. Cannot be changed, but for `deletionPolicy`."""

    virtual_machine: Annotated[
        str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="VirtualMachine of this namespace.")
    ]
    mode: Annotated[
        SnapshotMode,
        Field(
            description="Memory (default): disks and memory at one instant; of a machine that is off, its disks. "
            "Disk: the disks alone."
        ),
    ] = SnapshotMode.MEMORY
    quiesce: Annotated[
        bool,
        Field(
            description="With Disk: have the guest agent freeze the file systems meanwhile. Without an agent the "
            "snapshot is crash-consistent, and says so."
        ),
    ] = True
    deletion_policy: Annotated[
        SnapshotDeletionPolicy,
        Field(description="When the VirtualMachine is deleted: Delete the snapshot as well, or Retain it."),
    ] = SnapshotDeletionPolicy.DELETE
    exclude_disks: Annotated[
        tuple[Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)], ...],
        Field(max_length=64, description="Names of disks to leave out; a restore leaves them as they are."),
    ] = ()


class SnapshotDiskStatus(Model):
    """A disk in the snapshot."""

    name: Annotated[str, Field(description="Name in the machine.")]
    pool: Annotated[str, Field(description="Storage pool of the node that holds it.")]
    capacity: Annotated[Bytes, Field(description="Size a machine sees.")]
    size: Annotated[Bytes | None, Field(description="What it takes in the pool beyond the snapshot before it.")] = None


class VMSnapshotStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    phase: Annotated[SnapshotPhase, Field(description="Pending, Capturing, Ready, Failed or Deleting.")] = (
        SnapshotPhase.PENDING
    )
    ready_to_use: Annotated[bool, Field(description="It can be restored.")] = False
    creation_time: Annotated[datetime | None, Field(description="The instant that was captured.")] = None
    pause_milliseconds: Annotated[int | None, Field(description="How long the guest stood still.")] = None
    size: Annotated[Bytes | None, Field(description="What it takes on the node: memory and disks.")] = None
    memory_size: Annotated[Bytes | None, Field(description="What its memory image takes.")] = None
    disks: Annotated[tuple[SnapshotDiskStatus, ...], Field(description="Its disks.")] = ()
    parent: Annotated[
        str | None, Field(description="VMSnapshot that the machine had been captured in, or restored from, before.")
    ] = None
    indications: Annotated[
        tuple[SnapshotIndication, ...],
        Field(description="Online, Offline, Memory, GuestAgent, CrashConsistent: how it was captured."),
    ] = ()
    progress: Annotated[str | None, Field(description='While it is captured, such as "42%".')] = None
    node_name: Annotated[str | None, Field(description="VMNode that holds it.")] = None
    virtual_machine_uid: Annotated[str | None, Field(alias="virtualMachineUID", description="UID of the machine.")] = (
        None
    )
    virtual_machine_spec: Annotated[
        VirtualMachineSpec | None,
        WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        Field(description="Spec of the VirtualMachine at the capture: new machines are made from it."),
    ] = None
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class VMSnapshot(Resource):
    """A captured instant of a VirtualMachine. Deleting this object deletes what was captured."""

    plural: ClassVar[str] = "vmsnapshots"
    short_names: ClassVar[tuple[str, ...]] = ("vmsnap",)
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Machine", json_path=".spec.virtualMachine"),
        PrinterColumn(name="Phase", json_path=".status.phase"),
        PrinterColumn(name="Progress", json_path=".status.progress"),
        PrinterColumn(name="Size", json_path=".status.size"),
        PrinterColumn(name="Pause", type="integer", json_path=".status.pauseMilliseconds", priority=1),
        PrinterColumn(name="Parent", json_path=".status.parent", priority=1),
        PrinterColumn(name="Node", json_path=".status.nodeName", priority=1),
        PrinterColumn(name="Captured", type="date", json_path=".status.creationTime"),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VMSnapshot"
    spec: VMSnapshotSpec
    status: VMSnapshotStatus = VMSnapshotStatus()
