"""A guest that QEMU has stopped because a pool is full: when it goes on. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from virtfleet_node.core.pool_rules import PoolSpace, has_room

LOOK: Final = timedelta(seconds=2)
"""Between looks at the free space of a pool that has stopped a guest."""

LONGEST: Final = timedelta(seconds=30)
"""Between attempts that end where they began: the file system tells of room and yet has none (quotas, inodes)."""

FORGET: Final = timedelta(minutes=1)
"""A guest that ran on for so long was helped: the next time begins anew."""

_DOUBLINGS: Final = 4


@dataclass(frozen=True)
class Resumes:
    """Attempts to let a guest go on; kept in memory, one more does no harm."""

    count: int = 0
    last: datetime | None = None


def remembered(resumes: Resumes, now: datetime) -> Resumes:
    """Return the attempts that count for a guest that has just stopped."""
    return resumes if resumes.last is not None and now - resumes.last < FORGET else Resumes()


def next_attempt(since: datetime, resumes: Resumes, *, full: bool) -> datetime:
    """Return when to let a guest go on at the earliest, by when it stopped and what was tried before."""
    step = min(LOOK * 2 ** min(resumes.count, _DOUBLINGS), LONGEST) if full else LONGEST
    return max(since, resumes.last or since) + step


def have_room(pools: tuple[PoolSpace, ...]) -> bool:
    """Tell whether every pool that stopped the guest has room again."""
    return all(has_room(pool) for pool in pools)


def explain(pools: tuple[PoolSpace, ...]) -> str:
    """Say what stopped the guest and what to do."""
    names = " and ".join(pool.name for pool in pools)
    word, verb = ("Pool", "is") if len(pools) == 1 else ("Pools", "are")
    return (
        f"{word} {names} of the node {verb} full: free space there, and the guest goes on by itself, nothing is lost."
    )
