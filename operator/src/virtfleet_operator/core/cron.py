"""Times of a cron expression in a time zone.

As in cron: a time of day that the clock skips in spring comes right after the gap, and one that it shows twice in
autumn comes once. What runs every hour or minute runs by the time that passes.
"""

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from importlib.resources import files
from itertools import takewhile
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS: Final = 5
_WINDOWS: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=400))
"""How far to look back for the last time: what has many times has one soon, so that few are ever counted."""


@cache
def zone_names() -> frozenset[str]:
    """Return the names of all time zones; the same on every machine."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def similar_zones(name: str) -> list[str]:
    """Return time zones that somebody may have meant, the likeliest first."""
    by_folded = {known.casefold(): known for known in sorted(zone_names())}
    return [by_folded[found] for found in difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.7)]


def find_zone(name: str) -> tzinfo | None:
    """Return a time zone by its name, None if there is none."""
    if name == "UTC":
        return UTC
    return ZoneInfo(name) if name in zone_names() else None


def is_cron(expression: str) -> bool:
    """Tell whether an expression has five fields of cron and a time that comes."""
    if len(expression.split()) != _FIELDS:
        return False
    try:
        return next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)), None) is not None
    except CronSimError:
        return False


def next_time(expression: str, zone: tzinfo, after: datetime) -> datetime | None:
    """Return the first time after that one, in UTC; None when none comes in fifty years.

    Raises:
        CronSimError: `is_cron` says no.
    """
    return next(_times(expression, zone, after), None)


def last_time(expression: str, zone: tzinfo, after: datetime, until: datetime) -> datetime | None:
    """Return the last time after the one and not after the other, in UTC; None if there is none.

    Raises:
        CronSimError: `is_cron` says no.
    """
    for start in (*(until - window for window in _WINDOWS), after):
        times = takewhile(lambda time: time <= until, _times(expression, zone, max(after, start)))
        if (found := max(times, default=None)) is not None:
            return found
    return None


def _times(expression: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Yield the times in order, each once: around a change of the clock cronsim may repeat one or go back."""
    last = after
    for local in CronSim(expression, after.astimezone(zone)):
        time = local.astimezone(UTC)
        if time > last:
            last = time
            yield time
