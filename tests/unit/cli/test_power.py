"""Which patch each command is, for every run strategy, and when it has taken effect."""

from datetime import UTC, datetime
from typing import Any

import pytest

from virtfleet_cli.errors import CliError
from virtfleet_cli.power import (
    GRACE_ANNOTATION,
    describe_state,
    has_happened,
    plan_pause,
    plan_restart,
    plan_resume,
    plan_start,
    plan_stop,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 987654, tzinfo=UTC)
TOKEN = "2026-03-01T12:00:00Z"  # a time


def machine(
    strategy: str | None = None,
    power: str | None = None,
    status: str = "",
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    chosen = {"runStrategy": strategy, "powerState": power, **spec}
    return {
        "metadata": {"name": "web", "namespace": "shop", "generation": 1, "annotations": annotations or {}},
        "spec": {name: value for name, value in chosen.items() if value is not None},
        "status": {"printableStatus": status, "observedGeneration": 1} if status else {},
    }


@pytest.mark.parametrize(
    ("before", "spec"),
    [
        (machine("Halted"), {"runStrategy": "Always"}),
        (machine("Halted", "Paused"), {"runStrategy": "Always", "powerState": None}),
        (machine("Manual", "Stopped"), {"powerState": "Running"}),
        (machine("Manual", "Running", "Stopped"), {"restartRequestedAt": TOKEN}),
        (machine("Manual", None, "Crashed"), {"restartRequestedAt": TOKEN}),
        (machine("Once", None, "Stopped"), {"restartRequestedAt": TOKEN}),
        (machine("RerunOnFailure", None, "Stopped"), {"restartRequestedAt": TOKEN}),
        (machine("Always", None, "Crashed"), {"restartRequestedAt": TOKEN}),
    ],
)
def test_start(before: dict[str, Any], spec: dict[str, Any]) -> None:
    assert plan_start(before, NOW).patch == {"spec": spec}


@pytest.mark.parametrize(
    "before", [machine(), machine("Always", "Running", "Running"), machine("Once", None, "Starting")]
)
def test_start_of_what_runs_changes_nothing(before: dict[str, Any]) -> None:
    change = plan_start(before, NOW)
    assert (change.patch, change.sentence) == ({}, "VirtualMachine shop/web is already asked to run.")


def test_start_of_a_paused_machine_names_the_right_command() -> None:
    with pytest.raises(CliError, match="is paused; let it go on with `kubectl vm resume`"):
        plan_start(machine("Always", "Paused", "Paused"), NOW)


@pytest.mark.parametrize(
    ("before", "spec"),
    [
        (machine(), {"runStrategy": "Halted"}),
        (machine("Once"), {"runStrategy": "Halted"}),
        (machine("Always", "Stopped"), {"runStrategy": "Halted"}),
        (machine("Manual"), {"powerState": "Stopped"}),
        (machine("Manual", "Paused"), {"powerState": "Stopped"}),
    ],
)
def test_stop(before: dict[str, Any], spec: dict[str, Any]) -> None:
    assert plan_stop(before, force=False).patch == {"spec": spec}


@pytest.mark.parametrize("before", [machine("Halted"), machine("Manual", "Stopped")])
def test_stop_of_what_is_off_changes_nothing(before: dict[str, Any]) -> None:
    change = plan_stop(before, force=False)
    assert (change.patch, change.sentence) == ({}, "VirtualMachine shop/web is already asked to be off.")


def test_stop_by_force_remembers_the_grace_period_and_start_puts_it_back() -> None:
    change = plan_stop(machine("Always", terminationGracePeriodSeconds=300), force=True)
    assert change.patch == {
        "metadata": {"annotations": {GRACE_ANNOTATION: "300"}},
        "spec": {"runStrategy": "Halted", "terminationGracePeriodSeconds": 0},
    }
    stopped = machine("Halted", annotations={GRACE_ANNOTATION: "300"}, terminationGracePeriodSeconds=0)
    assert plan_start(stopped, NOW).patch == {
        "metadata": {"annotations": {GRACE_ANNOTATION: None}},
        "spec": {"runStrategy": "Always", "terminationGracePeriodSeconds": 300},
    }


def test_force_hurries_a_stop_that_is_under_way() -> None:
    assert plan_stop(machine("Halted", status="Stopping"), force=True).patch["spec"] == {
        "terminationGracePeriodSeconds": 0
    }


def test_force_twice_keeps_what_was_remembered() -> None:
    forced = machine("Halted", annotations={GRACE_ANNOTATION: "300"}, terminationGracePeriodSeconds=0)
    assert plan_stop(forced, force=True).patch == {}


@pytest.mark.parametrize("text", ["", "-1", "1e9", "999999", "soon"])
def test_a_spoilt_annotation_becomes_the_default(text: str) -> None:
    stopped = machine("Halted", annotations={GRACE_ANNOTATION: text}, terminationGracePeriodSeconds=0)
    assert plan_start(stopped, NOW).patch["spec"]["terminationGracePeriodSeconds"] == 60


def test_restart_asks_by_a_time_in_whole_seconds() -> None:
    assert plan_restart(machine(), NOW).patch == {"spec": {"restartRequestedAt": TOKEN}}


@pytest.mark.parametrize(
    ("last", "token"),
    [
        ("2026-03-01T11:59:59Z", TOKEN),
        (TOKEN, "2026-03-01T12:00:01Z"),
        ("2026-03-01T13:00:05+01:00", "2026-03-01T12:00:06Z"),
    ],
)
def test_every_restart_is_newer_than_the_last(last: str, token: str) -> None:
    assert plan_restart(machine(restartRequestedAt=last), NOW).patch == {"spec": {"restartRequestedAt": token}}


def test_pause_and_resume() -> None:
    assert plan_pause(machine()).patch == {"spec": {"powerState": "Paused"}}
    assert plan_pause(machine(power="Paused")).patch == {}
    assert plan_resume(machine(power="Paused")).patch == {"spec": {"powerState": "Running"}}
    assert plan_resume(machine()).patch == {}


@pytest.mark.parametrize("before", [machine("Halted"), machine("Manual", "Stopped")])
def test_what_is_off_can_only_be_started(before: dict[str, Any]) -> None:
    for plan in (plan_pause, plan_resume, lambda m: plan_restart(m, NOW)):
        with pytest.raises(CliError, match="is asked to be off; start it with `kubectl vm start`"):
            plan(before)


def test_it_has_happened_when_the_operator_says_so_of_this_generation() -> None:
    change = plan_stop(machine(status="Running"), force=False)
    after = machine("Halted", status="Stopped")
    assert has_happened(change, after)
    assert not has_happened(change, machine("Halted", status="Stopping"))
    after["metadata"]["generation"] = 2
    assert not has_happened(change, after)
    assert not has_happened(change, machine("Halted"))


def test_a_restart_has_happened_when_another_start_is_reported() -> None:
    before = machine(status="Running")
    before["status"]["machine"] = {"startedAt": "2026-03-01T10:00:00Z"}
    change = plan_restart(before, NOW)
    assert not has_happened(change, before)
    after = machine(status="Running")
    after["status"]["machine"] = {"startedAt": "2026-03-01T12:00:03Z"}
    assert has_happened(change, after)


def test_the_state_says_why_it_is_not_ready() -> None:
    stuck = machine(status="Unschedulable")
    stuck["status"]["conditions"] = [{"type": "Ready", "status": "False", "message": "No node has 8Gi free."}]
    assert describe_state(stuck) == "Unschedulable: No node has 8Gi free."
    assert describe_state(machine()) == "not reconciled yet"
