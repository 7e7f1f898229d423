"""Which pools a node has, from those its operator wants, those it has, and what they hold. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath as Path

from virtfleet_api.pool import Pool


@dataclass(frozen=True)
class Present:
    """What is there before the change."""

    configured: Mapping[str, Path]
    """Pools of the configuration file: they stay as they are."""
    held: Mapping[str, Pool]
    """Pools that the operator wanted before, or still wants."""
    contents: Mapping[str, str]
    """What a held pool holds, in words such as "2 disks and 1 image"; empty or absent for nothing."""
    roots: tuple[Path, ...]


@dataclass(frozen=True)
class Change:
    """What is there afterwards."""

    kept: Mapping[str, Pool]
    leaving: frozenset[str]
    """Of those kept, the pools that nobody wants and that are not empty."""
    notes: Mapping[str, str]
    """By name of a pool, why it is not as it is wanted."""


def decide(wanted: Iterable[Pool], present: Present) -> Change:
    """Return the pools to have. A pool that holds something is neither dropped nor moved."""
    asked = {pool.name: pool for pool in wanted}
    kept: dict[str, Pool] = {}
    notes: dict[str, str] = {}
    staying = {name: pool for name, pool in present.held.items() if present.contents.get(name)}
    for name in sorted(staying.keys() | asked.keys()):
        pool, old = asked.get(name), staying.get(name)
        taken = {**_paths(staying), **_paths(kept), **present.configured}
        note = _refusal(pool, old, present, {n: p for n, p in taken.items() if n != name}) if pool else ""
        if pool is None and old is not None:
            kept[name] = old
            notes[name] = f"It is not wanted any more and goes once it is empty; it holds {present.contents[name]}."
        elif pool is not None and not note:
            kept[name] = pool
        elif pool is not None and old is not None:
            kept[name] = pool.model_copy(update={"path": old.path})
        if note:
            notes[name] = note
    leaving = frozenset(name for name in kept if name not in asked)
    return Change(kept, leaving, notes)


def _paths(pools: Mapping[str, Pool]) -> dict[str, Path]:
    return {name: Path(pool.path) for name, pool in pools.items()}


def _refusal(pool: Pool, old: Pool | None, present: Present, others: Mapping[str, Path]) -> str:
    """Return why a pool cannot be had as it is wanted; empty when it can."""
    path = Path(pool.path)
    if pool.name in present.configured:
        return "The node's configuration file defines this pool: write another name, or change it there."
    if old is not None and old.path != pool.path:
        return (
            f"It stays in {old.path}, since it holds {present.contents[pool.name]}: remove these first, or "
            "add a pool under another name."
        )
    if not any(root in path.parents for root in present.roots):
        roots = ", ".join(str(root) for root in present.roots) or "nothing"
        return f"Its path is not below the poolRoots of the node's configuration file ({roots}): write one that is."
    for name, other in sorted(others.items()):
        if path == other or path in other.parents or other in path.parents:
            return f"Its path and that of pool {name} overlap: give each a directory of its own."
    return ""
