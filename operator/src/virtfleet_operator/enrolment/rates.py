"""How often may be asked: a token bucket for each source and one for all. Time is passed in."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from virtfleet_operator.enrolment.errors import BusyError


@dataclass(frozen=True)
class Rate:
    """A bucket: `burst` at once, then `per_second`."""

    burst: int
    per_second: float


SOURCE_RATE: Final = Rate(30, 0.5)
"""A daemon asks once a day, and every 30 s while it is refused; thirty nodes may share an address behind a NAT."""

TOTAL_RATE: Final = Rate(200, 20.0)
"""A rack that starts at once is served; each request costs up to three requests to the API server."""

_SOURCES: Final = 4096
"""Sources that are remembered; the longest silent one is forgotten first."""


class Bucket:
    """What is left of a rate."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = float(rate.burst)
        self._at = now

    def take(self, now: float) -> bool:
        """Take one; False if there is none."""
        self._left = min(self._left + max(now - self._at, 0.0) * self._rate.per_second, self._rate.burst)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class RateLimit:
    """The rates of all sources."""

    def __init__(self, now: float, source: Rate = SOURCE_RATE, total: Rate = TOTAL_RATE) -> None:
        self._source_rate = source
        self._total = Bucket(total, now)
        self._sources: OrderedDict[str, Bucket] = OrderedDict()

    def admit(self, source: str, now: float) -> None:
        """Count a request; BusyError if there were too many."""
        bucket = self._sources.pop(source, None) or Bucket(self._source_rate, now)
        self._sources[source] = bucket
        if len(self._sources) > _SOURCES:
            self._sources.popitem(last=False)
        # The source first: one that asks too often must not use up what is there for the others.
        if not bucket.take(now) or not self._total.take(now):
            raise BusyError("Too many requests. Ask again later.")
