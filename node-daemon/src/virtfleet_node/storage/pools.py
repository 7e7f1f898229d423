"""The pools of the node: directories that administrators name. What they hold, and whether they take more."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtfleet_api.pool import PoolType, commit_limit
from virtfleet_api.report import PoolReport
from virtfleet_node.core.errors import InvalidError, PoolFullError, UnavailableError
from virtfleet_node.core.pool_rules import PoolRules, PoolSpace, is_nearly_full, refusal
from virtfleet_node.storage.committed import read_committed
from virtfleet_node.storage.files import make_folder
from virtfleet_node.storage.reflink import can_reflink

FOLDERS: Final = ("disks", "images", "snapshots")

_LOOKS: Final = 3
"""Times that the disks are counted again because some were made meanwhile."""


@dataclass
class _Pool:
    """A pool, and what was last seen of it."""

    name: str
    path: Path
    rules: PoolRules
    space: PoolSpace
    nearly_full: bool = False
    reflink: bool | None = None
    counted_bytes: int = 0
    making_bytes: int = 0
    """Disks that are being made and have no name yet."""
    changes: int = 0
    problem: str = ""


class Pools:
    """Pools by name."""

    def __init__(self, paths: Mapping[str, Path], rules: Mapping[str, PoolRules] | None = None) -> None:
        self._pools: dict[str, _Pool] = {}
        self._notes: Mapping[str, str] = {}
        for name, path in paths.items():
            self.add(name, path, (rules or {}).get(name, PoolRules()))

    def add(self, name: str, path: Path, rules: PoolRules) -> None:
        """Take a pool in, or change its rules."""
        known = self._pools.get(name)
        if known is not None and known.path == path:
            known.rules = rules
        else:
            self._pools[name] = _Pool(name, path, rules, PoolSpace(name))

    def drop(self, name: str) -> None:
        """Forget a pool; its files stay."""
        self._pools.pop(name, None)

    def prepare(self) -> None:
        """Make the pools' folders where they are missing, and look at all of them."""
        for pool in self._pools.values():
            make_pool(pool.path, pool.rules.type)
        self.refresh()

    def names(self) -> tuple[str, ...]:
        """Return the names, in order."""
        return tuple(sorted(self._pools))

    def paths(self) -> dict[str, Path]:
        """Return the directories by name."""
        return {name: pool.path for name, pool in tuple(self._pools.items())}

    def folder(self, pool: str, kind: str) -> Path:
        """Return one of `FOLDERS` in a pool; InvalidError when the node has no such pool."""
        return self._find(pool).path / kind

    def free_bytes(self, pool: str) -> int:
        """Return the free space of a pool's file system."""
        return self.space(pool).free_bytes

    def space(self, pool: str) -> PoolSpace:
        """Return size and free space of a pool as they are now.

        Raises:
            InvalidError: the node has no such pool.
            UnavailableError: its directory cannot be read.
        """
        found = self._find(pool)
        _look(found)
        if found.problem:
            raise UnavailableError(found.problem)
        return found.space

    def check_open(self, pool: str, size_bytes: int = 0) -> None:
        """Refuse something new of this size when the pool takes nothing: PoolFullError with a sentence."""
        self.space(pool)
        found = self._find(pool)
        committed = found.counted_bytes + found.making_bytes
        said = refusal(found.space, found.rules, committed, size_bytes, nearly_full=found.nearly_full)
        if said:
            raise PoolFullError(said)

    @contextmanager
    def commit(self, pool: str, size_bytes: int) -> Iterator[None]:
        """Count a new disk while it is made and from then on; PoolFullError when the pool does not take it."""
        self.check_open(pool, size_bytes)
        found = self._find(pool)
        found.making_bytes += size_bytes
        try:
            yield
            found.counted_bytes += size_bytes
        finally:
            found.making_bytes -= size_bytes
            found.changes += 1

    def release(self, pool: str, size_bytes: int) -> None:
        """Count a disk no more that is being removed."""
        found = self._find(pool)
        found.counted_bytes = max(0, found.counted_bytes - size_bytes)
        found.changes += 1

    def is_busy(self, pool: str) -> bool:
        """Tell whether a disk is being made in a pool."""
        return self._find(pool).making_bytes > 0

    def refresh(self) -> None:
        """Look at every pool: its space, its disks, its file system. Blocks."""
        for pool in tuple(self._pools.values()):
            _look(pool)
            if pool.problem:
                continue
            try:
                _count(pool)
            except OSError as error:  # one that fails must not hide the others
                _mark_unreadable(pool, error)
            if pool.reflink is None:
                pool.reflink = can_reflink(pool.path)

    def reports(self) -> tuple[PoolReport, ...]:
        """Return what was last seen of each pool, and why others are not there."""
        known = (_report(self._pools[name], self._notes.get(name, "")) for name in self.names())
        missing = sorted(self._notes.keys() - self._pools.keys())
        return (*known, *(PoolReport(name=n, capacity_bytes=0, free_bytes=0, problem=self._notes[n]) for n in missing))

    def note(self, notes: Mapping[str, str]) -> None:
        """Keep why pools are not as they are wanted, for the reports."""
        self._notes = dict(notes)

    def _find(self, pool: str) -> _Pool:
        try:
            return self._pools[pool]
        except KeyError:
            raise InvalidError(f"This node has no pool {pool}; it has: {', '.join(self.names())}.") from None


def make_pool(path: Path, kind: PoolType) -> None:
    """Make the folders of a pool. The directory of a shared one must be there: else its file system is not mounted."""
    if kind is PoolType.DIRECTORY:
        path.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        make_folder(path / name)


def _look(pool: _Pool) -> None:
    """Read the space of a pool. Its folder `disks` shows that it is the pool and not a directory it is mounted on."""
    try:
        found = os.statvfs(pool.path / FOLDERS[0])
    except OSError as error:
        _mark_unreadable(pool, error)
        return
    pool.problem = ""
    used = found.f_blocks - found.f_bfree
    pool.space = PoolSpace(pool.name, *(count * found.f_frsize for count in (found.f_blocks, used, found.f_bavail)))
    pool.nearly_full = is_nearly_full(pool.space, pool.rules, before=pool.nearly_full)


def _mark_unreadable(pool: _Pool, error: OSError) -> None:
    pool.problem = f"Pool {pool.name} cannot be read: {error.strerror}; is its file system mounted?"
    pool.space = PoolSpace(pool.name)


def _count(pool: _Pool) -> None:
    for _ in range(_LOOKS):
        changes = pool.changes
        counted = read_committed(pool.path / FOLDERS[0])
        if pool.changes == changes:
            pool.counted_bytes = counted
            return


def _report(pool: _Pool, note: str) -> PoolReport:
    return PoolReport(
        name=pool.name,
        type=pool.rules.type,
        capacity_bytes=pool.space.capacity_bytes,
        free_bytes=pool.space.free_bytes,
        committed_bytes=pool.counted_bytes + pool.making_bytes,
        limit_bytes=commit_limit(pool.space.capacity_bytes, pool.rules.overcommit),
        watermark=pool.rules.watermark,
        nearly_full=pool.nearly_full and not pool.problem,
        leaving=pool.rules.leaving,
        reflink=bool(pool.reflink),
        problem=pool.problem or note,
    )
