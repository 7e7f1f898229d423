"""Conditions: the transition time tells when the status changed, and nothing else moves it."""

from datetime import UTC, datetime, timedelta

import pytest

from virtfleet_api.conditions import Condition, ConditionStatus, set_condition

T0 = datetime(2026, 1, 1, tzinfo=UTC)
T1 = T0 + timedelta(minutes=1)


def condition(kind: str, status: ConditionStatus, at: datetime, message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason="Because", message=message, last_transition_time=at)


def test_a_new_condition_is_added_in_the_order_of_types() -> None:
    ready = condition("Ready", ConditionStatus.TRUE, T0)
    paused = condition("Paused", ConditionStatus.FALSE, T1)
    assert set_condition((ready,), paused) == (paused, ready)


def test_the_same_status_keeps_its_time_and_takes_the_new_sentence() -> None:
    old = (condition("Ready", ConditionStatus.FALSE, T0, "No image."),)
    (new,) = set_condition(old, condition("Ready", ConditionStatus.FALSE, T1, "No node."))
    assert (new.last_transition_time, new.message) == (T0, "No node.")


@pytest.mark.parametrize("status", [ConditionStatus.TRUE, ConditionStatus.UNKNOWN])
def test_another_status_takes_the_new_time(status: ConditionStatus) -> None:
    old = (condition("Ready", ConditionStatus.FALSE, T0),)
    (new,) = set_condition(old, condition("Ready", status, T1))
    assert new.last_transition_time == T1


def test_saying_the_same_again_changes_nothing() -> None:
    old = (condition("Paused", ConditionStatus.FALSE, T0), condition("Ready", ConditionStatus.TRUE, T0))
    assert set_condition(old, condition("Ready", ConditionStatus.TRUE, T1)) == old
