"""The pools of a node in its status: figures in steps, and what an administrator must know of them."""

from collections.abc import Iterator, Sequence
from typing import Final

from virtfleet_api.conditions import Condition, ConditionType
from virtfleet_api.quantity import Bytes
from virtfleet_api.report import PoolReport
from virtfleet_api.vm_node import NodePool, PoolStatus, VMNodeStatus
from virtfleet_operator.core.summarise.bounds import size_of
from virtfleet_operator.core.summarise.conditions import NO, YES, Says
from virtfleet_operator.core.verdict import join_problems, plain

FREE_STEP: Final = 0.05
"""Share of a pool's capacity by which its free space must move to be written again (docs/adr/0003)."""

_MAX_WORD: Final = 128
_MAX_POOLS: Final = 64
_TYPES: Final = frozenset({ConditionType.PRESSURE, ConditionType.POOLS_READY})


def pool_statuses(old: VMNodeStatus, reported: Sequence[PoolReport]) -> Iterator[PoolStatus]:
    """Return the pools as they are shown."""
    before = {pool.name: pool for pool in old.pools}
    # A list of the API has each name once, whatever a node says.
    for name, pool in sorted({plain(pool.name, _MAX_WORD): pool for pool in reported[:_MAX_POOLS]}.items()):
        yield PoolStatus(
            name=name,
            type=pool.type,
            capacity=size_of(pool.capacity_bytes),
            free=_steady_free(before.get(name), pool),
            committed=size_of(pool.committed_bytes),
            committable=size_of(pool.limit_bytes),
            nearly_full=pool.nearly_full,
            reflink=pool.reflink,
            problem=plain(pool.problem) or None,
        )


def _steady_free(before: PoolStatus | None, pool: PoolReport) -> Bytes | None:
    """Keep the figure that is written until it is wrong by a step; an empty pool is always told."""
    free = size_of(pool.free_bytes)
    if before is None or before.free is None or free is None:
        return free
    moved = abs(free - before.free) >= FREE_STEP * pool.capacity_bytes
    return free if moved or before.free > pool.capacity_bytes else before.free


def pools_say(
    generation: int, wanted: Sequence[NodePool], reported: Sequence[PoolReport], refused: str
) -> Iterator[Says]:
    """Say whether pools are nearly full, and whether they are as they are wanted."""
    pools = sorted(reported[:_MAX_POOLS], key=lambda p: p.name)
    if full := [
        f"{plain(pool.name, _MAX_WORD)} ({plain(pool.watermark, 8)} used)" for pool in pools if pool.nearly_full
    ]:
        message = (
            f"Nearly full: pool {', '.join(full)}. New disks and images are refused there, those that exist go on: "
            "free space, enlarge the file system, or add a pool."
        )
        yield Says(ConditionType.PRESSURE, YES, "PoolNearlyFull", message, generation)
    problems = [f"pool {plain(p.name, _MAX_WORD)}: {plain(p.problem)}" for p in pools if p.problem]
    missing = sorted({pool.name for pool in wanted} - {pool.name for pool in pools})
    if refused:
        yield Says(ConditionType.POOLS_READY, NO, "Refused", plain(refused), generation)
    elif problems:
        yield Says(ConditionType.POOLS_READY, NO, "PoolNotReady", join_problems(problems), generation)
    elif missing:
        message = f"The node has not reported pool {', '.join(missing)} yet."
        yield Says(ConditionType.POOLS_READY, NO, "Synchronizing", message, generation)
    elif wanted:
        yield Says(ConditionType.POOLS_READY, YES, "Ready", "Every pool is as the spec wants it.", generation)


def pools_said(old: Sequence[Condition]) -> Iterator[Says]:
    """Repeat what was said of the pools of a node that has not reported since the operator started."""
    for condition in old:
        if condition.type in _TYPES:
            kind = ConditionType(condition.type)
            yield Says(kind, condition.status, condition.reason, condition.message, condition.observed_generation)
