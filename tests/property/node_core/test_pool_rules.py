"""What a pool takes: never more than is allowed, without flapping, and a stopped guest goes on when there is room."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.pool import commit_limit
from virtfleet_node.core.full_pool import LONGEST, Resumes, next_attempt, remembered
from virtfleet_node.core.pool_rules import (
    RELIEF_PERCENT,
    PoolRules,
    PoolSpace,
    has_room,
    is_nearly_full,
    refusal,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
percents = st.integers(1, 100)
ratios = st.none() | st.decimals("1", "999", places=2).map(str)
sizes = st.integers(0, 1 << 50)


@st.composite
def spaces(draw: st.DrawFn) -> PoolSpace:
    used, free, reserved = draw(sizes), draw(sizes), draw(sizes)
    return PoolSpace("default", used + free + reserved, used, free)


@given(spaces(), percents, st.booleans())
def test_a_pool_is_nearly_full_from_its_watermark_and_until_it_is_clearly_below(
    space: PoolSpace,
    percent: int,
    before: bool,  # noqa: FBT001 -- drawn
) -> None:
    rules = PoolRules(watermark=f"{percent}%")
    total = space.used_bytes + space.free_bytes
    used = Decimal(100 * space.used_bytes) / total if total else Decimal(100)
    found = is_nearly_full(space, rules, before=before)
    if used >= percent:
        assert found
    if used < percent and not before:
        assert not found
    if used < percent - RELIEF_PERCENT:
        assert not found


@given(spaces(), st.integers(0, 100), ratios)
def test_disks_are_promised_up_to_the_limit_and_not_a_byte_more(
    space: PoolSpace, share: int, ratio: str | None
) -> None:
    rules = PoolRules(overcommit=ratio)
    limit = commit_limit(space.capacity_bytes, ratio)
    if limit is None:
        assert refusal(space, rules, 1 << 60, 1 << 60, nearly_full=False) == ""
        return
    committed = limit * share // 100
    assert refusal(space, rules, committed, limit - committed, nearly_full=False) == ""
    said = refusal(space, rules, committed, limit - committed + 1, nearly_full=False)
    assert said.startswith("Pool default may promise")
    assert Decimal(limit) <= space.capacity_bytes * Decimal(str(ratio)) < limit + 1


@given(spaces(), st.integers(0, 1 << 40))
def test_a_pool_that_is_nearly_full_takes_nothing(space: PoolSpace, asked: int) -> None:
    assert refusal(space, PoolRules(), 0, asked, nearly_full=True).startswith("Pool default is nearly full")


@given(spaces())
def test_a_guest_goes_on_with_room_and_a_pool_that_is_empty_has_some(space: PoolSpace) -> None:
    assert has_room(PoolSpace("default", space.capacity_bytes, 0, space.capacity_bytes)) == (space.capacity_bytes > 0)
    if space.capacity_bytes >= 1 << 20:
        assert not has_room(PoolSpace("default", space.capacity_bytes, space.capacity_bytes, 0))


@given(st.lists(st.integers(0, 300), max_size=12))
def test_attempts_are_never_closer_than_two_seconds_nor_rarer_than_thirty(runs: list[int]) -> None:
    resumes, now = Resumes(), NOW
    for seconds in runs:
        resumes = remembered(resumes, now)
        due = next_attempt(now, resumes, full=True)
        assert timedelta(seconds=2) <= due - now <= LONGEST
        resumes, now = Resumes(resumes.count + 1, due), due + timedelta(seconds=seconds)
