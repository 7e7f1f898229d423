"""The kind VMSnapshotSchedule: snapshots at set times, and how many of them are kept."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.conditions import Condition
from virtfleet_api.names import DNS_SUBDOMAIN_PATTERN
from virtfleet_api.resource import PrinterColumn, Resource
from virtfleet_api.scheduling import LabelSelector
from virtfleet_api.vm_snapshot import MAX_SNAPSHOTS, SnapshotDeletionPolicy, SnapshotMode


class MissedRuns(StrEnum):
    """What becomes of times that passed while nobody could capture."""

    SKIP = "Skip"
    RUN_ONCE = "RunOnce"


class Retention(Model):
    """Which of the schedule's snapshots stay; what both say goes when either says so. The newest one always stays."""

    keep: Annotated[
        int | None, Field(ge=1, le=MAX_SNAPSHOTS - 1, description="How many of each machine, the newest.")
    ] = None
    duration: Annotated[
        str | None,
        Field(
            pattern=r"^([1-9][0-9]{0,4})(m|h|d|w)$",
            max_length=6,
            description='How long, such as "36h", "14d" or "8w".',
        ),
    ] = None


class VMSnapshotScheduleSpec(Model):
    """When to capture what. Exactly one of `virtualMachine` and `selector`."""

    schedule: Annotated[
        str,
        Field(max_length=128, description='Five fields as in cron, such as "0 2 * * *" for 02:00 a day.'),
    ]
    time_zone: Annotated[str, Field(max_length=64, description='Such as "Europe/Berlin".')] = "UTC"
    virtual_machine: Annotated[
        str | None,
        Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="VirtualMachine of this namespace."),
    ] = None
    selector: Annotated[LabelSelector | None, Field(description="VirtualMachines by label.")] = None
    mode: Annotated[SnapshotMode, Field(description="As in VMSnapshot.")] = SnapshotMode.DISK
    quiesce: Annotated[bool, Field(description="As in VMSnapshot.")] = True
    deletion_policy: Annotated[SnapshotDeletionPolicy, Field(description="As in VMSnapshot.")] = (
        SnapshotDeletionPolicy.DELETE
    )
    retention: Annotated[Retention, Field(description="Which snapshots stay; the last 7 by default.")] = Retention(
        keep=7
    )
    missed_runs: Annotated[
        MissedRuns,
        Field(description="Times that passed while the operator was away: Skip, or RunOnce as soon as it can."),
    ] = MissedRuns.SKIP
    suspend: Annotated[bool, Field(description="Capture nothing for now, and remove nothing.")] = False


class VMSnapshotScheduleStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    last_schedule_time: Annotated[datetime | None, Field(description="The last time that was acted on.")] = None
    next_schedule_time: Annotated[datetime | None, Field(description="The next time.")] = None
    machines: Annotated[int, Field(description="Machines that it captures.")] = 0
    snapshots: Annotated[int, Field(description="Snapshots of it that are there.")] = 0
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class VMSnapshotSchedule(Resource):
    """Snapshots at set times. Deleting this object leaves the snapshots."""

    plural: ClassVar[str] = "vmsnapshotschedules"
    short_names: ClassVar[tuple[str, ...]] = ("vmsnapsched",)
    name_max_length: ClassVar[int] = 200
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Schedule", json_path=".spec.schedule"),
        PrinterColumn(name="Zone", json_path=".spec.timeZone"),
        PrinterColumn(name="Machines", type="integer", json_path=".status.machines"),
        PrinterColumn(name="Snapshots", type="integer", json_path=".status.snapshots"),
        PrinterColumn(name="Suspended", type="boolean", json_path=".spec.suspend"),
        PrinterColumn(name="Last", type="date", json_path=".status.lastScheduleTime"),
        PrinterColumn(name="Next", json_path=".status.nextScheduleTime", priority=1),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VMSnapshotSchedule"
    spec: VMSnapshotScheduleSpec
    status: VMSnapshotScheduleStatus = VMSnapshotScheduleStatus()
