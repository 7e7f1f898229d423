"""The pools that the operator wants beside those of the configuration file: <state directory>/pools.json.

They are kept on the node, so that a daemon has its pools without an operator. A directory is made when its pool is
taken in and never again: one that is missing later is a file system that is not mounted.
"""

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from virtfleet_api.base import Document
from virtfleet_api.pool import Pool, PoolSet, PoolType
from virtfleet_node.core.errors import InvalidError, UnavailableError
from virtfleet_node.core.pool_changes import Change, Present, decide
from virtfleet_node.core.pool_rules import PoolRules
from virtfleet_node.storage.files import check_real, make_folder, subfolders, write_whole
from virtfleet_node.storage.pools import FOLDERS, Pools, make_pool

_LOG = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 5.0
"""Counting the disks of a thousand machines takes a tenth of a second."""


class _Kept(Document):
    """What is kept: what is wanted, and what there is, which may be more."""

    wanted: tuple[Pool, ...] = ()
    held: tuple[Pool, ...] = ()


class WantedPools:
    """Adds pools to those of the configuration file and takes them away again."""

    def __init__(self, pools: Pools, file: Path, roots: tuple[Path, ...]) -> None:
        self._pools = pools
        self._file = file
        self._roots = roots
        self._configured = {name: PurePosixPath(path) for name, path in pools.paths().items()}
        self._kept = _Kept()
        self._wanted: tuple[Pool, ...] = ()
        self._held: dict[str, Pool] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Take up what an earlier process kept."""
        self._kept = self._read()
        self._wanted = self._kept.wanted
        self._held = {pool.name: pool for pool in self._kept.held if pool.name not in self._configured}
        wanted = {pool.name for pool in self._wanted}
        for pool in self._held.values():
            self._pools.add(pool.name, Path(pool.path), _rules(pool, leaving=pool.name not in wanted))
        self.tidy()

    def put(self, wanted: PoolSet) -> frozenset[str]:
        """Make the pools those that are wanted, as far as it can be; return the names of those that are new. Blocks."""
        with self._alone():
            self._wanted = wanted.items
            return self._change(decide(self._wanted, self._present()))

    def tidy(self) -> None:
        """Let pools go that have become empty, and look again at what could not be had. Blocks."""
        with self._alone():
            self._change(decide(self._wanted, self._present()))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Work alone; a file system that hangs must not let threads pile up behind it."""
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            raise UnavailableError("A pool's file system does not answer; the pools are looked at again later.")
        try:
            yield
        finally:
            self._lock.release()

    def _present(self) -> Present:
        contents = {name: _contents(Path(pool.path)) for name, pool in self._held.items()}
        roots = tuple(PurePosixPath(root) for root in self._roots)
        return Present(self._configured, self._held, contents, roots)

    def _change(self, change: Change) -> frozenset[str]:
        notes, held = dict(change.notes), dict(change.kept)
        for name, pool in change.kept.items():
            old = self._held.get(name)
            if (old is None or old.path != pool.path) and (said := self._make(pool)):
                notes[name] = said
                del held[name]
        going = {name: old for name, old in self._held.items() if name not in held or held[name].path != old.path}
        busy = {name: old for name, old in going.items() if not self._is_empty(old)}
        held.update(busy)  # something came in meanwhile: they are decided on again at the next look
        fresh = frozenset(n for n, pool in held.items() if n not in self._held or self._held[n].path != pool.path)
        # Kept first: a pool that is kept and has no directory any more would be taken for one that is not mounted.
        self._keep(held)
        self._let_go(old for name, old in going.items() if name not in busy)
        for name, pool in held.items():
            self._pools.add(name, Path(pool.path), _rules(pool, leaving=name in change.leaving or name in busy))
        self._held = held
        self._pools.note(notes)
        self._pools.refresh()
        return fresh

    def _make(self, pool: Pool) -> str:
        """Make a pool's folders, or say why that is not possible."""
        path = Path(pool.path)
        try:
            root = next(root for root in self._roots if root in path.parents)
            _make_below(root, path, pool.type)
        except InvalidError as error:
            return str(error)
        except OSError as error:
            hint = "; mount its file system and make the directory" if pool.type is PoolType.SHARED else ""
            return f"Its directory cannot be made or used: {error.strerror}{hint}."
        return ""

    def _is_empty(self, pool: Pool) -> bool:
        """Tell whether a pool holds nothing, once nothing new can come into it."""
        self._pools.add(pool.name, Path(pool.path), _rules(pool, leaving=True))
        return not self._pools.is_busy(pool.name) and not _contents(Path(pool.path))

    def _let_go(self, pools: Iterable[Pool]) -> None:
        for pool in pools:
            _LOG.info("Letting a pool go", extra={"pool": pool.name})
            self._pools.drop(pool.name)
            _remove_empty(Path(pool.path), pool.type)

    def _keep(self, held: Mapping[str, Pool]) -> None:
        kept = _Kept(wanted=self._wanted, held=tuple(held.values()))
        if kept != self._kept:
            write_whole(self._file, kept.model_dump_json(exclude_none=True).encode())
            self._kept = kept

    def _read(self) -> _Kept:
        try:
            return _Kept.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _Kept()
        except ValidationError:
            _LOG.exception("Leaving out pools that cannot be read; the operator sends them again")
            return _Kept()


def _rules(pool: Pool, *, leaving: bool) -> PoolRules:
    return PoolRules(pool.type, pool.overcommit, pool.watermark, leaving)


def _contents(path: Path) -> str:
    """Say what a pool holds, in words; a pool that cannot be read may hold anything."""
    try:
        disks, images, machines = (len(subfolders(path / kind)) for kind in FOLDERS)
        (path / FOLDERS[0]).stat()
    except OSError:
        return "what cannot be read now"
    said = (
        f"disks of {_count(disks, 'machine')}" if disks else "",
        _count(images, "image") if images else "",
        f"snapshots of {_count(machines, 'machine')}" if machines else "",
    )
    return " and ".join(filter(None, said))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number > 1)}"


def _make_below(root: Path, path: Path, kind: PoolType) -> None:
    """Make a pool's folders below a root, following no link on the way."""
    root.mkdir(parents=True, exist_ok=True)
    step = root
    for part in path.relative_to(root).parts:
        step = step / part
        if kind is PoolType.DIRECTORY:
            make_folder(step)
        else:
            check_real(step)
    make_pool(path, kind)


def _remove_empty(path: Path, kind: PoolType) -> None:
    if kind is PoolType.DIRECTORY:
        with contextlib.suppress(OSError):
            for folder in (*(path / name for name in FOLDERS), path):
                folder.rmdir()
