"""Times, names and retention of schedules, for any expression, time zone and past."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.vm_snapshot import SnapshotPhase, VMSnapshot
from virtfleet_api.vm_snapshot_schedule import MissedRuns, Retention, VMSnapshotSchedule
from virtfleet_operator.core.cron import find_zone, is_cron, last_time, next_time, zone_names
from virtfleet_operator.core.schedule import (
    LATE,
    due_run,
    duration_of,
    expired,
    next_expiry,
    schedule_label,
    snapshot_name,
    taken_at,
)
from virtfleet_operator.core.validate.names import is_label_value
from virtfleet_operator.core.validate.vm_snapshot_schedule import schedule_problems

START = datetime(2026, 3, 20, tzinfo=UTC)
"""Nine days before Europe's clocks change, one week and a half after America's."""

fields = st.tuples(
    st.one_of(st.just("*/15"), st.just("0,30"), st.integers(0, 59).map(str)),
    st.one_of(st.just("*"), st.just("1-3"), st.integers(0, 23).map(str)),
    st.one_of(st.just("*"), st.integers(1, 28).map(str)),
    st.just("*"),
    st.one_of(st.just("*"), st.just("MON-FRI"), st.integers(0, 6).map(str)),
)
expressions = fields.map(" ".join)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
moments = st.integers(0, 40 * 24 * 3600).map(lambda seconds: START + timedelta(seconds=seconds))
name = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?", fullmatch=True)
long_name = st.builds(lambda part, times: (part * times)[:200].rstrip("-.") or "a", name, st.integers(1, 200))


def schedule(expression: str, zone: str = "UTC", missed: MissedRuns = MissedRuns.SKIP) -> VMSnapshotSchedule:
    spec = {"schedule": expression, "timeZone": zone, "virtualMachine": "web-1", "missedRuns": missed}
    meta = {"name": "nightly", "namespace": "shop", "generation": 1, "creationTimestamp": START}
    return VMSnapshotSchedule.model_validate({"metadata": meta, "spec": spec})


@given(expressions, zones, moments, moments)
def test_the_last_time_is_the_one_after_which_none_came(
    expression: str, zone: str, one: datetime, two: datetime
) -> None:
    known, after, until = find_zone(zone), min(one, two), max(one, two)
    assert known
    last = last_time(expression, known, after, until)
    following = next_time(expression, known, last or after)
    assert following is None or following > until
    if last is not None:
        assert after < last <= until
        assert last == last_time(expression, known, last - timedelta(seconds=1), last)


@given(expressions, zones, moments)
def test_times_only_go_on_and_each_comes_once(expression: str, zone: str, after: datetime) -> None:
    known = find_zone(zone)
    assert known
    times = [after]
    for _ in range(12):
        following = next_time(expression, known, times[-1])
        assert following
        times.append(following)
    assert times == sorted(set(times))
    assert all(time.second == 0 and time.tzinfo is UTC for time in times[1:])


@given(
    st.one_of(
        st.text(min_size=9, max_size=128), st.from_regex(r"[0-9*/,L#W-]{1,9}( [0-9*/,L#W-]{1,9}){4}", fullmatch=True)
    )
)
def test_any_text_is_refused_with_a_sentence_or_has_a_next_time(text: str) -> None:
    if is_cron(text):
        assert next_time(text, UTC, START) is not None
        assert not schedule_problems(schedule(text))
    else:
        assert "names no time: write" in schedule_problems(schedule(text))[0]


@given(st.text(min_size=1, max_size=64))
def test_any_time_zone_is_known_or_refused_with_another(text: str) -> None:
    problems = schedule_problems(schedule("0 2 * * *", text))
    assert (text in zone_names()) == (not problems)
    for problem in problems:
        assert problem.rpartition('"')[0].rpartition('"')[2] in zone_names()


@given(expressions, zones, st.sampled_from(MissedRuns), st.lists(moments, min_size=1, max_size=20))
def test_no_time_is_acted_on_twice_and_none_that_is_looked_at_in_time_is_lost(
    expression: str, zone: str, missed: MissedRuns, looks: list[datetime]
) -> None:
    current, acted = schedule(expression, zone, missed), list[datetime]()
    for now in sorted(looks):
        run = due_run(current, now)
        if run is None:
            continue
        assert run == due_run(current, now), "whoever looks again after a crash asks for the same names"
        assert run.captures or (missed is MissedRuns.SKIP and now - run.time > LATE)
        acted.append(run.time)
        status = current.status.model_copy(update={"last_schedule_time": run.time, "observed_generation": 1})
        current = current.model_copy(update={"status": status})
        assert due_run(current, now) is None
    assert acted == sorted(set(acted))


@given(long_name, long_name, moments)
def test_names_fit_and_follow_from_the_time(of: str, machine: str, time: datetime) -> None:
    made = snapshot_name(of, machine, time)
    assert len(made) <= 253
    assert made == snapshot_name(of, machine, time.replace(second=0))
    assert made.endswith(f"-{time:%Y%m%d%H%M}")
    assert made.startswith(f"{of}-{machine}") == (len(f"{of}-{machine}") <= 240)
    assert is_label_value(schedule_label(of))
    assert (schedule_label(of) == of) == (len(of) <= 63)


@given(long_name, st.integers(0, 40), moments)
def test_names_that_are_cut_differ_where_machines_do(machine: str, number: int, time: datetime) -> None:
    assert snapshot_name("s" * 200, machine, time) != snapshot_name("s" * 200, f"{machine}{number}", time)


snapshots = st.lists(
    st.tuples(
        st.sampled_from(["web-1", "web-2"]),
        st.sampled_from(SnapshotPhase),
        st.booleans(),
        st.integers(0, 60 * 24).map(lambda hours: START - timedelta(hours=hours)),
    ),
    max_size=40,
).map(lambda drawn: [_snapshot(index, *parts) for index, parts in enumerate(drawn)])
retentions = st.builds(
    Retention,
    keep=st.one_of(st.none(), st.integers(1, 31)),
    duration=st.one_of(st.none(), st.sampled_from(["90m", "36h", "14d", "8w"])),
)


def _snapshot(index: int, machine: str, phase: SnapshotPhase, usable: bool, at: datetime) -> VMSnapshot:  # noqa: FBT001
    meta = {"name": f"s-{index}", "namespace": "shop", "uid": str(index), "creationTimestamp": at}
    status = {"phase": phase, "readyToUse": usable and phase is SnapshotPhase.READY}
    return VMSnapshot.model_validate({"metadata": meta, "spec": {"virtualMachine": machine}, "status": status})


def _ready(found: Sequence[VMSnapshot], machine: str) -> list[VMSnapshot]:
    mine = [s for s in found if s.spec.virtual_machine == machine and s.status.phase is SnapshotPhase.READY]
    return sorted(mine, key=lambda s: (taken_at(s), s.metadata.name))


@given(retentions, snapshots)
def test_the_newest_stays_and_so_does_the_newest_that_can_be_restored(
    retention: Retention, found: list[VMSnapshot]
) -> None:
    gone = expired(retention, found, START)
    for machine in ("web-1", "web-2"):
        ready = _ready(found, machine)
        usable = [s for s in ready if s.status.ready_to_use]
        assert not any(s in gone for s in (*ready[-1:], *usable[-1:]))
    assert all(s.status.phase in (SnapshotPhase.READY, SnapshotPhase.FAILED) for s in gone)


@given(retentions, snapshots)
def test_what_is_kept_is_what_the_retention_says(retention: Retention, found: list[VMSnapshot]) -> None:
    gone, duration = expired(retention, found, START), duration_of(retention)
    for machine in ("web-1", "web-2"):
        ready = _ready(found, machine)
        kept = [s for s in ready if s not in gone]
        spared = 0 if not ready or ready[-1].status.ready_to_use else 1
        if retention.keep is not None:
            assert len(kept) <= retention.keep + spared
        if retention.keep is not None and duration is None:
            assert ready[-retention.keep :] == kept[-retention.keep :]
        if duration is not None:
            assert sum(taken_at(s) + duration <= START for s in kept) <= 1 + spared
        if retention.keep is None and duration is None:
            assert kept == ready


@given(retentions, snapshots)
def test_deleting_settles_and_the_next_expiry_is_the_next_that_goes(
    retention: Retention, found: list[VMSnapshot]
) -> None:
    kept = [s for s in found if s not in expired(retention, found, START)]
    assert not expired(retention, kept, START)
    later = next_expiry(retention, kept, START)
    if later is not None:
        assert not [s for s in expired(retention, kept, later - timedelta(seconds=1)) if s.status.ready_to_use]


@given(retentions, snapshots)
def test_a_failed_one_never_outlives_a_later_success(retention: Retention, found: list[VMSnapshot]) -> None:
    kept = [s for s in found if s not in expired(retention, found, START)]
    for s in kept:
        if s.status.phase is SnapshotPhase.FAILED:
            ready = _ready(found, s.spec.virtual_machine)
            assert not ready or taken_at(ready[-1]) <= taken_at(s)
