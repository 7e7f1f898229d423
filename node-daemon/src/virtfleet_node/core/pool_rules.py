"""When a pool takes new disks and images, and when a guest that a full pool has stopped goes on. Arithmetic alone."""

from dataclasses import dataclass
from typing import Final

from virtfleet_api.pool import DEFAULT_WATERMARK, PoolType, commit_limit

RELIEF_PERCENT: Final = 5
"""A pool that was nearly full takes new disks again this far below its watermark, so that it does not flap."""

ROOM_BYTES: Final = 64 << 20
"""Free space that lets a stopped guest go on: with less it would stop again at once."""

ROOM_SHARE: Final = 50
"""The same for small pools, as a part of the whole: 2 %."""

_GIB: Final = 1 << 30


@dataclass(frozen=True)
class PoolRules:
    """What an administrator says of a pool, beside where it is."""

    type: PoolType = PoolType.DIRECTORY
    overcommit: str | None = None
    watermark: str = DEFAULT_WATERMARK
    leaving: bool = False
    """Nobody wants it any more."""

    @property
    def watermark_percent(self) -> int:
        """Return the watermark as a number."""
        return int(self.watermark.removesuffix("%"))


@dataclass(frozen=True)
class PoolSpace:
    """Size and space of a pool, in bytes; used and free may be less than the whole: root keeps a reserve."""

    name: str
    capacity_bytes: int = 0
    used_bytes: int = 0
    free_bytes: int = 0


def is_nearly_full(space: PoolSpace, rules: PoolRules, *, before: bool) -> bool:
    """Tell whether a pool is above its watermark, as df(1) counts; one that was stays so until it is clearly below."""
    mark = max(1, rules.watermark_percent - (RELIEF_PERCENT if before else 0))
    return 100 * space.used_bytes >= mark * (space.used_bytes + space.free_bytes)


def has_room(space: PoolSpace) -> bool:
    """Tell whether a guest that this pool has stopped may go on; not while the pool cannot be read."""
    return space.capacity_bytes > 0 and space.free_bytes >= min(ROOM_BYTES, space.capacity_bytes // ROOM_SHARE)


def refusal(space: PoolSpace, rules: PoolRules, committed_bytes: int, asked_bytes: int, *, nearly_full: bool) -> str:
    """Return why a pool takes no new disk of this size; empty when it does."""
    if rules.leaving:
        return f"Pool {space.name} is being removed from the node and takes nothing new: use another pool."
    if nearly_full:
        return (
            f"Pool {space.name} is nearly full (more than {rules.watermark} are used) and takes nothing new: "
            "free space in it, or use another pool."
        )
    limit = commit_limit(space.capacity_bytes, rules.overcommit)
    if limit is not None and committed_bytes + asked_bytes > limit:
        return (
            f"Pool {space.name} may promise disks {_gib(limit)} in all and has promised {_gib(committed_bytes)}: "
            f"{_gib(asked_bytes)} more are too many; use another pool, or raise its overcommit."
        )
    return ""


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
