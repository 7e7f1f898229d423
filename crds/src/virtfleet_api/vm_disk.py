"""The kind VMDisk: a disk that has outlived its machine, and waits for another."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.conditions import Condition
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN, UID_PATTERN
from virtfleet_api.quantity import Bytes
from virtfleet_api.resource import PrinterColumn, Resource


class VMDiskPhase(StrEnum):
    """What a kept disk is good for."""

    PENDING = "Pending"
    AVAILABLE = "Available"
    IN_USE = "InUse"
    LOST = "Lost"


class FormerMachine(Model):
    """The machine that the disk was made for."""

    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="Its name.")]
    uid: Annotated[
        str, Field(pattern=UID_PATTERN, max_length=36, description="Its UID, which is the folder of the disk's file.")
    ]


class VMDiskSpec(Model):
    """Where the disk is. Written by the operator when the machine is deleted, and never changed."""

    node_name: Annotated[
        str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="VMNode that the disk is on.")
    ]
    pool: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Storage pool of the node that holds it.")
    ]
    disk: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Its name in that machine.")]
    former_machine: Annotated[FormerMachine, Field(description="The machine that it was made for.")]


class DiskUser(Model):
    """The VirtualMachine that takes the disk over."""

    name: Annotated[str, Field(description="Its name.")]
    uid: Annotated[str, Field(description="Its UID.")]


class VMDiskStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    phase: Annotated[
        VMDiskPhase,
        Field(
            description="Pending (not handed over by the operator), Available, InUse (a machine takes it over), "
            "Lost (its node left the fleet)."
        ),
    ] = VMDiskPhase.PENDING
    capacity: Annotated[Bytes | None, Field(description="Size a machine sees.")] = None
    allocated: Annotated[Bytes | None, Field(description="What its file took when it was kept.")] = None
    user: Annotated[DiskUser | None, Field(description="The machine that takes it over.")] = None
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class VMDisk(Resource):
    """A disk that was kept when its machine was deleted. Deleting this object deletes the disk."""

    plural: ClassVar[str] = "vmdisks"
    short_names: ClassVar[tuple[str, ...]] = ("vmd",)
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Phase", json_path=".status.phase"),
        PrinterColumn(name="Node", json_path=".spec.nodeName"),
        PrinterColumn(name="Pool", json_path=".spec.pool"),
        PrinterColumn(name="Size", json_path=".status.capacity"),
        PrinterColumn(name="Former", json_path=".spec.formerMachine.name"),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VMDisk"
    spec: VMDiskSpec
    status: VMDiskStatus = VMDiskStatus()
