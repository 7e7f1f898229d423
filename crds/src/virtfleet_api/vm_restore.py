"""The kind VMRestore: a machine brought back to a snapshot, or new machines made from one."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.conditions import Condition
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.resource import PrinterColumn, Resource


class RestorePhase(StrEnum):
    """How far a restore has come."""

    PENDING = "Pending"
    RESTORING = "Restoring"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class NewVirtualMachines(Model):
    """Machines to make, named `<namePrefix>-1`, `<namePrefix>-2` and so on."""

    name_prefix: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=50, description="What their names begin with.")
    ]
    count: Annotated[int, Field(ge=1, le=256, description="How many.")] = 1
    reset_machine_id: Annotated[
        bool,
        Field(
            description="Have the agent of each guest that goes on from memory write a machine-id of its own: "
            "`/etc/machine-id` becomes the machine's UUID."
        ),
    ] = False


class RestoreTarget(Model):
    """Exactly one of `virtualMachine` and `newVirtualMachines`."""

    virtual_machine: Annotated[
        str | None,
        Field(
            pattern=DNS_SUBDOMAIN_PATTERN,
            max_length=253,
            description="The VirtualMachine that the snapshot is of: its disks, and its memory, become what they were.",
        ),
    ] = None
    new_virtual_machines: Annotated[
        NewVirtualMachines | None, Field(description="New machines with names, addresses and UUIDs of their own.")
    ] = None


class VMRestoreSpec(Model):
    """What to restore, once. Cannot be changed."""

    snapshot: Annotated[
        str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="VMSnapshot of this namespace.")
    ]
    target: Annotated[RestoreTarget, Field(description="What becomes of it.")]
    memory: Annotated[
        bool,
        Field(description="Let the guest go on where it was, with a snapshot that has its memory; false starts it."),
    ] = True
    snapshot_first: Annotated[
        bool,
        Field(
            description="With `virtualMachine`: capture the present state first, in a VMSnapshot named "
            "`<this name>-before`."
        ),
    ] = False


class RestoredMachine(Model):
    """A machine of the restore."""

    name: Annotated[str, Field(description="VirtualMachine.")]
    phase: Annotated[RestorePhase, Field(description="How far it has come.")] = RestorePhase.PENDING
    warm: Annotated[bool, Field(description="It goes on with the memory of the snapshot.")] = False
    message: Annotated[str | None, Field(description="What it waits for, why it failed, or that it is off.")] = None


class VMRestoreStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    phase: Annotated[RestorePhase, Field(description="Pending, Restoring, Succeeded or Failed.")] = RestorePhase.PENDING
    machines: Annotated[tuple[RestoredMachine, ...], Field(description="The machines, by name.")] = ()
    done: Annotated[str | None, Field(description='How many of them are restored, such as "3/10".')] = None
    start_time: Annotated[datetime | None, Field(description="When it began.")] = None
    completion_time: Annotated[datetime | None, Field(description="When it ended.")] = None
    snapshot_before: Annotated[str | None, Field(description="VMSnapshot of the state before.")] = None
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Complete among them.")] = ()


class VMRestore(Resource):
    """One restore of a snapshot. Deleting this object undoes nothing."""

    plural: ClassVar[str] = "vmrestores"
    short_names: ClassVar[tuple[str, ...]] = ("vmrestore",)
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Snapshot", json_path=".spec.snapshot"),
        PrinterColumn(name="Machine", json_path=".spec.target.virtualMachine"),
        PrinterColumn(name="Phase", json_path=".status.phase"),
        PrinterColumn(name="Done", json_path=".status.done"),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VMRestore"
    spec: VMRestoreSpec
    status: VMRestoreStatus = VMRestoreStatus()
