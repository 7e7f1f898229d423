"""Conditions keep one entry for each type, sorted, whatever is said in whatever order."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.conditions import Condition, ConditionStatus, set_condition

CONDITIONS = st.builds(
    Condition,
    type=st.sampled_from(["Ready", "Paused", "Scheduled"]),
    status=st.sampled_from(ConditionStatus),
    reason=st.just("Because"),
    message=st.text(max_size=5),
    lastTransitionTime=st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)),  # noqa: DTZ001  # bound
)


@given(st.lists(CONDITIONS, max_size=12))
def test_one_entry_for_each_type_with_what_was_said_last(said: list[Condition]) -> None:
    kept: tuple[Condition, ...] = ()
    for new in said:
        before = {c.type: c for c in kept}.get(new.type)
        kept = set_condition(kept, new)
        after = {c.type: c for c in kept}[new.type]
        assert (after.status, after.message) == (new.status, new.message)
        changed = before is None or before.status != new.status
        assert after.last_transition_time == (new if changed or before is None else before).last_transition_time
    assert [c.type for c in kept] == sorted({c.type for c in said})
    for condition in kept:
        assert set_condition(kept, condition) == kept
