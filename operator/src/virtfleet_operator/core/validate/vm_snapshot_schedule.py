"""Rules about schedules of snapshots."""

from collections.abc import Iterator

from virtfleet_api.vm_snapshot_schedule import VMSnapshotSchedule
from virtfleet_operator.core.cron import is_cron, similar_zones, zone_names
from virtfleet_operator.core.validate.scheduling import selector_problems
from virtfleet_operator.core.verdict import quote


def schedule_problems(schedule: VMSnapshotSchedule) -> tuple[str, ...]:
    """Check a schedule."""
    return tuple(_problems(schedule))


def _problems(schedule: VMSnapshotSchedule) -> Iterator[str]:
    spec = schedule.spec
    if not is_cron(spec.schedule):
        yield (
            f"spec.schedule: {quote(spec.schedule)} names no time: write minute, hour, day of the month, month and "
            'day of the week, such as "0 2 * * *" for 02:00 a day'
        )
    if spec.time_zone not in zone_names():
        meant = next(iter(similar_zones(spec.time_zone)), "Europe/Berlin")
        yield f'spec.timeZone: {quote(spec.time_zone)} is no time zone: write one such as "{meant}"'
    if (spec.virtual_machine is None) == (spec.selector is None):
        said = "is there beside virtualMachine" if spec.selector else "is missing, and so is virtualMachine"
        yield f'spec.selector: {said}: write exactly one, such as "virtualMachine: web-1"'
    if spec.selector is not None:
        yield from selector_problems("spec.selector", spec.selector)
    if spec.retention.keep is None and spec.retention.duration is None:
        yield 'spec.retention: says nothing: write how many stay, such as "keep: 7", or how long: "duration: 14d"'
