"""When a guest that ended by itself is started again."""

from datetime import datetime, timedelta
from typing import Final

from virtfleet_node.core.record import Record

FIRST_DELAY: Final = timedelta(seconds=10)
"""As the kubelet's crash loop back-off."""

LONGEST_DELAY: Final = timedelta(minutes=5)
"""As the kubelet's."""

STEADY: Final = timedelta(minutes=10)
"""A guest that ran this long starts with a clean slate; as the kubelet's."""

_DOUBLINGS: Final = 6
"""10 s doubled six times is beyond the longest delay; a bound keeps the power small."""


def backoff_delay(record: Record) -> timedelta:
    """Return how long a machine stays off: not at all after its first end, then 10 s, doubled each time.

    A start that failed waits from the first time on, since nothing says that the next would do better.
    """
    steps = record.failures - (1 if not record.start_error else 0)
    if steps <= 0:
        return timedelta(0)
    return min(FIRST_DELAY * (1 << min(steps - 1, _DOUBLINGS)), LONGEST_DELAY)


def next_start_at(record: Record, now: datetime) -> datetime:
    """Return when the next start is due; now, when it is not known when the guest stopped."""
    return now if record.stopped_at is None else record.stopped_at + backoff_delay(record)


def is_steady(record: Record, now: datetime) -> bool:
    """Tell whether the guest has run long enough for its failures to be forgotten."""
    return record.started_at is not None and now - record.started_at >= STEADY
