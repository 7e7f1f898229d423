"""Whatever the fleet looks like: no copy goes that is used, and a good one stays where it can be reached."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.image import ImageReport
from virtfleet_api.vm_image import ImagePhase, VMImage
from virtfleet_operator.core.copies import plan_copies
from virtfleet_operator.core.place import Candidate, PoolRoom

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
KEEP = timedelta(hours=24)
UID = "11111111-2222-3333-4444-555555555555"
NAMES = st.sampled_from([f"n{number}" for number in range(6)])
PHASES = st.sampled_from(list(ImagePhase))
AGES = st.integers(min_value=0, max_value=48).map(lambda hours: timedelta(hours=hours))


def made(idle: dict[str, timedelta]) -> VMImage:
    nodes = [
        {"name": name, "phase": "Ready", "unusedSince": (NOW - age).isoformat()} for name, age in sorted(idle.items())
    ]
    meta = {"name": "base", "namespace": "shop", "uid": UID}
    spec = {"source": {"http": {"url": "https://images.example.org/a"}}}
    return VMImage.model_validate({"metadata": meta, "spec": spec, "status": {"nodes": nodes}})


@given(
    users=st.frozensets(NAMES),
    copies=st.dictionaries(NAMES, PHASES),
    idle=st.dictionaries(NAMES, AGES),
    lost=st.frozensets(NAMES),
)
def test_no_copy_that_is_needed_goes(
    users: frozenset[str], copies: dict[str, ImagePhase], idle: dict[str, timedelta], lost: frozenset[str]
) -> None:
    nodes = [
        Candidate(f"n{n}", unready="not ready" if f"n{n}" in lost else "", pools={"default": PoolRoom()})
        for n in range(6)
    ]
    reports = {name: ImageReport(uid=UID, namespace="shop", name="base", phase=phase) for name, phase in copies.items()}
    plan = plan_copies(made(idle), users, reports, nodes, KEEP, NOW)
    hold, drop = set(plan.hold), set(plan.drop)
    assert not hold & drop
    assert users <= hold
    assert set(copies) <= hold | drop
    assert not drop & lost
    assert all(idle[name] >= KEEP for name in drop)
    good = {name for name, phase in copies.items() if phase is ImagePhase.READY} - lost
    assert not good or good & hold
    assert not drop or good & hold, "nothing is removed when no good copy would be left within reach"
    assert plan.again_at is None or NOW < plan.again_at <= NOW + KEEP
    left = {name: report for name, report in reports.items() if name not in drop}
    assert plan_copies(made(idle), users, left, nodes, KEEP, NOW).drop == ()
