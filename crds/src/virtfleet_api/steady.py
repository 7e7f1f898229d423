"""Figures that guests move all the time are told in steps, so that no guest makes anybody write (docs/adr/0003)."""

from typing import Final

LEAST_STEP: Final = 16 << 20
"""Bytes by which what a disk takes must move at least to be told again; less is the noise of a log."""

PARTS: Final = 20
"""Beyond that, it is told again when it has moved by this part of itself: 5 %, as a pool's free space."""


def steady_allocation(told: int | None, now: int) -> int:
    """Return the bytes to tell: what was told before, until it is wrong by a step."""
    if told is None or abs(now - told) >= max(LEAST_STEP, told // PARTS):
        return now
    return told
