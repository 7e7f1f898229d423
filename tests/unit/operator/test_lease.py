"""Who may take the Lease, and which epoch follows which."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_operator.kube.lease import Sighting, is_free, next_epoch

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def lease(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "7"}, "spec": spec}


def test_a_released_lease_is_free() -> None:
    assert is_free(lease(holderIdentity="", leaseDurationSeconds=15), Sighting("7", 0), 0, "me")
    assert is_free(lease(), Sighting("7", 0), 0, "me")


def test_an_earlier_life_of_the_same_identity_does_not_block() -> None:
    assert is_free(lease(holderIdentity="me", leaseDurationSeconds=15), Sighting("7", 0), 0, "me")


@given(st.floats(min_value=0, max_value=14.9))
def test_a_live_holder_keeps_it(seconds: float) -> None:
    assert not is_free(lease(holderIdentity="you", leaseDurationSeconds=15), Sighting("7", 100), 100 + seconds, "me")


def test_a_silent_holder_loses_it_after_the_duration_it_has_promised() -> None:
    assert is_free(lease(holderIdentity="you", leaseDurationSeconds=15), Sighting("7", 100), 115, "me")


@given(st.integers(min_value=0, max_value=2**31 - 2))
def test_every_acquisition_raises_the_epoch(transitions: int) -> None:
    epoch = next_epoch(lease(leaseTransitions=transitions), NOW)
    assert epoch > transitions
    assert next_epoch(lease(leaseTransitions=epoch), NOW) > epoch


def test_a_deleted_lease_does_not_lead_to_an_epoch_that_nodes_have_seen_exceeded() -> None:
    epoch = next_epoch(None, NOW)
    for _ in range(10):
        epoch = next_epoch(lease(leaseTransitions=epoch), NOW)
    assert next_epoch(None, NOW + timedelta(minutes=11)) > epoch


def test_an_epoch_fits_the_lease_for_a_long_time() -> None:
    assert next_epoch(None, datetime(2999, 1, 1, tzinfo=UTC)) < 2**31
