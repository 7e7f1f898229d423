"""Schedules of snapshots: a real API server and operator, simulated nodes, and times that have just come."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SPACE, Rig
from virtfleet_api.names import SCHEDULE_LABEL
from virtfleet_api.vm_snapshot import SnapshotPhase
from virtfleet_operator.kube.paths import OUR_PATHS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = {"name": "root", "size": "1Gi", "source": {"blank": {}}}
EVERY_MINUTE = "* * * * *"
NEVER_NOW = "0 0 29 2 *"
TWO_MINUTES = 130.0


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave nothing to the next test."""
    yield
    for node in fleet.nodes.values():
        node.daemon.snapshots.phase = SnapshotPhase.READY
    await fleet.clear("VMSnapshotSchedule", "VMSnapshot", "VirtualMachine")


async def run_machine(fleet: Rig, name: str, **metadata: Any) -> None:
    await fleet.create("VirtualMachine", name, {"memory": {"guest": "512Mi"}, "disks": [ROOT]}, **metadata)
    await fleet.wait_word(name, "Running")


async def snapshots(fleet: Rig) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await fleet.client.get(OUR_PATHS["VMSnapshot"].collection(SPACE)))["items"]
    return items


async def names(fleet: Rig) -> list[str]:
    return sorted(found["metadata"]["name"] for found in await snapshots(fleet))


async def wait_names(fleet: Rig, *expected: str) -> None:
    async def so() -> bool:
        return await names(fleet) == sorted(expected)

    await fleet.eventually(so, f"the VMSnapshots are {expected}")


async def wait_reason(fleet: Rig, name: str, reason: str) -> dict[str, Any]:
    async def so() -> bool:
        return (await fleet.condition("VMSnapshotSchedule", name, "Ready")).get("reason") == reason

    await fleet.eventually(so, f"{name} says {reason}", TWO_MINUTES)
    return await fleet.condition("VMSnapshotSchedule", name, "Ready")


async def have_acted(fleet: Rig, name: str, ago: timedelta) -> None:
    """Have a schedule look as if it had acted last so long ago."""
    last = (datetime.now(UTC) - ago).replace(microsecond=0).isoformat()
    path = OUR_PATHS["VMSnapshotSchedule"].status(SPACE, name)
    await fleet.client.patch(path, {"status": {"lastScheduleTime": last}})


def minutes_ago(number: int) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=number)


async def test_each_chosen_machine_is_captured_once_at_each_time(fleet: Rig) -> None:
    for name in ("web-1", "web-2"):
        await run_machine(fleet, name, labels={"tier": "web"})
    await run_machine(fleet, "other")
    spec = {"schedule": EVERY_MINUTE, "selector": {"matchLabels": {"tier": "web"}}, "retention": {"keep": 1}}
    await fleet.create("VMSnapshotSchedule", "often", spec)
    await wait_reason(fleet, "often", "Ready")
    await have_acted(fleet, "often", timedelta(minutes=1))  # the minute that has begun is due at once

    async def captured() -> bool:
        found = await snapshots(fleet)
        return len(found) >= 2 and all(s.get("status", {}).get("phase") == "Ready" for s in found)

    await fleet.eventually(captured, "both are captured")
    found = await snapshots(fleet)
    assert {s["spec"]["virtualMachine"] for s in found} == {"web-1", "web-2"}
    assert {s["metadata"]["labels"][SCHEDULE_LABEL] for s in found} == {"often"}
    first = await names(fleet)
    await fleet.kill_operator("one")
    await fleet.start_operator()

    async def again() -> bool:
        now = await names(fleet)
        return len(now) == 2 and not set(now) & set(first)

    await fleet.eventually(again, "the next time came, and what was kept before is gone", TWO_MINUTES)
    said = (await fleet.get("VMSnapshotSchedule", "often") or {})["status"]
    assert (said["machines"], said["snapshots"]) == (2, 2)
    last = datetime.fromisoformat(said["lastScheduleTime"])
    assert [f"often-{name}-{last:%Y%m%d%H%M}" for name in ("web-1", "web-2")] == await names(fleet)
    assert datetime.fromisoformat(said["nextScheduleTime"]) == last + timedelta(minutes=1)


async def test_missed_times_are_skipped_or_made_up_for_once(fleet: Rig) -> None:
    await run_machine(fleet, "web-1")
    past = minutes_ago(40)
    hourly = {"schedule": f"{past.minute} * * * *", "virtualMachine": "web-1"}
    for name, missed in (("skips", "Skip"), ("catches-up", "RunOnce")):
        await fleet.create("VMSnapshotSchedule", name, {**hourly, "missedRuns": missed})
        await wait_reason(fleet, name, "Ready")
        await have_acted(fleet, name, timedelta(hours=5))
    await wait_names(fleet, f"catches-up-web-1-{past:%Y%m%d%H%M}")

    async def acted() -> bool:
        said = (await fleet.get("VMSnapshotSchedule", "skips") or {})["status"]
        return datetime.fromisoformat(said.get("lastScheduleTime", "1970-01-01T00:00:00Z")) == past.replace(
            second=0, microsecond=0
        )

    await fleet.eventually(acted, "the missed time is skipped")
    events = (await fleet.client.get(f"/api/v1/namespaces/{SPACE}/events"))["items"]
    assert "Missed" in {e["reason"] for e in events if e["involvedObject"]["name"] == "skips"}


async def test_an_operator_that_is_killed_amid_a_time_ends_it_and_repeats_nothing(fleet: Rig) -> None:
    machines = [f"web-{number}" for number in range(8)]
    for name in machines:
        await run_machine(fleet, name)
    past = minutes_ago(40)
    spec = {"schedule": f"{past.minute} * * * *", "selector": {}, "missedRuns": "RunOnce"}
    await fleet.create("VMSnapshotSchedule", "all", spec)
    await wait_reason(fleet, "all", "Ready")
    await have_acted(fleet, "all", timedelta(hours=5))

    async def begun() -> bool:
        return bool(await names(fleet))

    await fleet.eventually(begun, "it has begun")
    await fleet.kill_operator("one")
    await fleet.start_operator()
    await wait_names(fleet, *(f"all-{name}-{past:%Y%m%d%H%M}" for name in machines))

    async def captured() -> bool:
        return all(s.get("status", {}).get("phase") == "Ready" for s in await snapshots(fleet))

    await fleet.eventually(captured, "all are captured")
    told = {(wanted.uid, wanted.machine_uid) for node in fleet.nodes.values() for wanted in node.daemon.snapshots.told}
    held = {report.uid for node in fleet.nodes.values() for report in node.daemon.snapshots.reports.values()}
    mine = {uid: machine for uid, machine in told if uid in held}
    assert len(mine) == len(set(mine.values())) == len(machines)


async def test_a_suspended_schedule_captures_nothing_and_makes_up_for_nothing(fleet: Rig) -> None:
    await run_machine(fleet, "web-1")
    past = minutes_ago(10)
    spec = {"schedule": f"{past.minute} * * * *", "virtualMachine": "web-1", "missedRuns": "RunOnce", "suspend": True}
    await fleet.create("VMSnapshotSchedule", "rests", spec)
    await wait_reason(fleet, "rests", "Suspended")
    await have_acted(fleet, "rests", timedelta(hours=3))
    await fleet.patch("VMSnapshotSchedule", "rests", {"spec": {"suspend": False}})
    await wait_reason(fleet, "rests", "Ready")
    said = (await fleet.get("VMSnapshotSchedule", "rests") or {})["status"]
    assert datetime.fromisoformat(said["lastScheduleTime"]) == past.replace(second=0, microsecond=0)
    assert not await names(fleet)


async def test_retention_deletes_what_is_old_and_keeps_the_newest(fleet: Rig) -> None:
    await run_machine(fleet, "web-1")
    await fleet.create("VMSnapshotSchedule", "keeps", {"schedule": NEVER_NOW, "virtualMachine": "web-1"})
    for number in range(4):
        labels = {SCHEDULE_LABEL: "keeps"}
        await fleet.create("VMSnapshot", f"s-{number}", {"virtualMachine": "web-1"}, labels=labels)

        async def ready(name: str = f"s-{number}") -> bool:
            return await fleet.is_ready("VMSnapshot", name)

        await fleet.eventually(ready, "it is captured")
    await fleet.create("VMSnapshot", "mine", {"virtualMachine": "web-1"})
    await fleet.patch("VMSnapshotSchedule", "keeps", {"spec": {"retention": {"keep": 2}}})
    await wait_names(fleet, "mine", "s-2", "s-3")


async def test_a_failed_time_is_a_condition_until_one_succeeds(fleet: Rig) -> None:
    await run_machine(fleet, "web-1")
    for node in fleet.nodes.values():
        node.daemon.snapshots.phase = SnapshotPhase.FAILED
    past = minutes_ago(40)
    spec = {"schedule": f"{past.minute} * * * *", "virtualMachine": "web-1", "missedRuns": "RunOnce"}
    await fleet.create("VMSnapshotSchedule", "fails", spec)
    await wait_reason(fleet, "fails", "Ready")
    await have_acted(fleet, "fails", timedelta(hours=5))
    assert f"fails-web-1-{past:%Y%m%d%H%M}" in (await wait_reason(fleet, "fails", "CaptureFailed"))["message"]
    for node in fleet.nodes.values():
        node.daemon.snapshots.phase = SnapshotPhase.READY
    await fleet.delete("VMSnapshot", f"fails-web-1-{past:%Y%m%d%H%M}")
    await wait_reason(fleet, "fails", "Ready")


async def test_a_schedule_without_machines_and_one_that_cannot_be_read_say_so(fleet: Rig) -> None:
    await fleet.create("VMSnapshotSchedule", "empty", {"schedule": NEVER_NOW, "virtualMachine": "nobody"})
    await wait_reason(fleet, "empty", "NoMachines")
    await fleet.create("VMSnapshotSchedule", "wrong", {"schedule": "every day", "virtualMachine": "nobody"})
    assert "names no time" in (await wait_reason(fleet, "wrong", "Invalid"))["message"]
