"""Numbers of a peer, cut to what the API can hold: a status that the API server refuses would be sent for ever."""

from typing import Final

from virtfleet_api.quantity import Bytes, Frequency

MAX_CELLS: Final = 64
"""NUMA cells of a host; the largest servers have 32."""

_MAX_COUNT: Final = 2**31 - 1  # of CPUs, machines, restarts: what every client reads as an integer


def size_of(count: int | None) -> Bytes | None:
    """Return a size in bytes; None for none."""
    return Bytes(min(count, Bytes.largest)) if count and count > 0 else None


def frequency_of(hertz: int) -> Frequency | None:
    """Return a frequency; None for none."""
    return Frequency(min(hertz, Frequency.largest)) if hertz > 0 else None


def count_of(count: int) -> int:
    """Return a count."""
    return max(0, min(count, _MAX_COUNT))
