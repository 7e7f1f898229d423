import pytest

from virtfleet_operator.enrolment.errors import BusyError
from virtfleet_operator.enrolment.rates import Bucket, Rate, RateLimit
from virtfleet_operator.enrolment.server import source_of


def admitted(limit: RateLimit, source: str, count: int, now: float) -> int:
    """Return how many of the requests are admitted."""
    done = 0
    for _ in range(count):
        try:
            limit.admit(source, now)
        except BusyError:
            continue
        done += 1
    return done


def test_a_bucket_fills_again_up_to_its_burst() -> None:
    bucket = Bucket(Rate(2, 0.5), now=0)
    assert [bucket.take(0), bucket.take(0), bucket.take(0)] == [True, True, False]
    assert [bucket.take(1), bucket.take(2), bucket.take(2)] == [False, True, False]
    assert [bucket.take(1000) for _ in range(3)] == [True, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(Rate(1, 1), now=100)
    assert bucket.take(100)
    assert not bucket.take(0)


def test_one_source_does_not_use_up_what_is_there_for_others() -> None:
    limit = RateLimit(0, source=Rate(3, 0), total=Rate(5, 0))
    assert admitted(limit, "a", 100, 0) == 3
    assert admitted(limit, "b", 100, 0) == 2


def test_the_total_is_bounded_over_all_sources() -> None:
    limit = RateLimit(0, source=Rate(3, 0), total=Rate(5, 0))
    assert sum(admitted(limit, str(number), 1, 0) for number in range(100)) == 5


def test_sources_that_are_remembered_are_bounded() -> None:
    limit = RateLimit(0, total=Rate(10**6, 0))
    for number in range(10_000):
        limit.admit(str(number), 0)
    assert len(limit._sources) == 4096


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::/64"),
        ("fd00:1:2:3::1", "fd00:1:2:3::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        (None, "unknown"),
        ("/run/socket", "unknown"),
    ],
)
def test_a_host_cannot_have_many_sources(address: str | None, source: str) -> None:
    assert source_of(address) == source
