"""What shall be in the northbound database, kept there.

Callers say what each owner's rows shall be, which costs nothing. One task writes what has changed, much at a time,
and repairs what others have changed. Nothing is written when everything is as it shall be.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Final

from virtfleet_operator.core.network.rows import Row, RowKey
from virtfleet_operator.ovn.database import Database
from virtfleet_operator.ovn.errors import RefusedError, UnavailableError

log: Final = logging.getLogger(__name__)

COALESCE_SECONDS: Final = 0.02
"""How long a change waits for others. Each transaction makes northd of OVN 23.03 compute everything anew."""
MAX_BATCH: Final = 500
"""Owners in one transaction: five thousand at once would take longer than a write may take."""
BACKOFF_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
REFUSED_RETRY_SECONDS: Final = 30.0
"""A refusal lasts, unless somebody removes what the row clashed with."""


class Stage(StrEnum):
    """How far an owner's rows are."""

    PENDING = "Pending"
    WRITTEN = "Written"
    REFUSED = "Refused"


@dataclass(frozen=True)
class OwnerState:
    """How far an owner's rows are, and what is in the way."""

    stage: Stage
    message: str | None = None


@dataclass
class _Owner:
    """What an owner wants, and what has become of it."""

    rows: tuple[Row, ...]
    generation: int
    written: int = 0
    refused: str | None = None
    waiting: frozenset[RowKey] = field(default_factory=frozenset)

    @property
    def needs(self) -> frozenset[RowKey]:
        return frozenset().union(*(row.needs for row in self.rows))

    @property
    def keys(self) -> set[RowKey]:
        return {row.key for row in self.rows}


class Northbound:
    """The desired rows and the task that writes them. Everything but `run` returns at once."""

    def __init__(self, remotes: str, on_change: Callable[[str], None]) -> None:
        """`remotes` as OVSDB has them; `on_change` is called with an owner whose state, or port, may have changed."""
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._database = Database(remotes, self._on_touched)
        self._owners: dict[str, _Owner] = {}
        self._needed: dict[RowKey, set[str]] = {}
        """Owners whose rows name a row in their text."""
        self._waited: dict[RowKey, set[str]] = {}
        """Owners some of whose rows wait for a row."""
        self._vanishing: dict[str, set[RowKey]] = {}
        """Rows that go with the next write of an owner."""
        self._strangers: set[str] = set()
        """Owners that have rows and that nobody has set."""
        self._kept: set[str] = set()
        """Owners whose rows stay as they are found."""
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._complete = False
        self._generation = 0
        self._up: set[str] = set()
        self._trouble: str | None = "not connected to the OVN northbound database yet"
        self.transactions = 0
        """Transactions that changed something."""

    def set(self, owner: str, rows: Collection[Row]) -> None:
        """Want exactly these rows for an owner."""
        found, wanted = self._owners.get(owner), tuple(rows)
        if found is None or found.rows != wanted:
            self._want(owner, wanted)

    def remove(self, owner: str) -> None:
        """Want no rows for an owner."""
        self.set(owner, ())

    def keep(self, owner: str) -> None:
        """Leave an owner's rows as they are found, as nobody knows what they shall be; until they are set."""
        self._kept.add(owner)

    def complete(self) -> None:
        """Say that every owner there is has been set: from now on, rows of all others are removed."""
        self._complete = True
        self._mark(self._strangers - self._kept)

    @property
    def trouble(self) -> str | None:
        """What keeps everything from being written; None when nothing does."""
        return self._trouble

    def refusal(self, owner: str) -> str | None:
        """Return why the database refuses an owner's rows; None when it does not."""
        found = self._owners.get(owner)
        return found.refused if found is not None else None

    def state(self, owner: str) -> OwnerState:
        """Return how far an owner's rows are; those of one that is removed are written once they are gone."""
        found = self._owners.get(owner)
        if found is None:
            return OwnerState(Stage.WRITTEN)
        if found.refused is not None:
            return OwnerState(Stage.REFUSED, found.refused)
        if found.written < found.generation:
            return OwnerState(Stage.PENDING, self._trouble)
        if found.waiting:
            names = ", ".join(sorted(f"{key.table} {key.name}" for key in found.waiting))
            return OwnerState(Stage.PENDING, f"waiting for {names}")
        return OwnerState(Stage.WRITTEN)

    def is_up(self, port: str) -> bool:
        """Tell whether a logical switch port is connected at a node. It stays so when the node dies."""
        return port in self._up

    async def run(self) -> None:
        """Connect and write, until cancelled."""
        try:
            await self._persist(self._connect)
            while True:
                await self._wake.wait()
                await asyncio.sleep(COALESCE_SECONDS)
                self._wake.clear()
                while self._dirty:
                    await self._persist(partial(self._write, self._take()))
        finally:
            await asyncio.to_thread(self._database.close)

    async def _persist(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something until the database is available for it."""
        attempt = 0
        while True:
            try:
                await act()
            except UnavailableError as error:
                self._tell_trouble(str(error))
                await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
                attempt += 1
            else:
                self._tell_trouble(None)
                return

    async def _connect(self) -> None:
        await asyncio.to_thread(self._database.open)

    async def _write(self, owners: Collection[str]) -> None:
        """Write owners' rows; what is refused is found by halves, so that one bad row stops no other."""
        owners = self._together(owners)
        generations = {owner: found.generation for owner in owners if (found := self._owners.get(owner))}
        batch = {owner: self._owners[owner].rows if owner in self._owners else () for owner in owners}
        try:
            written = await asyncio.to_thread(self._database.write, batch)
        except RefusedError as error:
            if len(owners) == 1:
                self._refuse(owners[0], str(error))
            else:
                await self._write(owners[: len(owners) // 2])
                await self._write(owners[len(owners) // 2 :])
            return
        self.transactions += written.operations > 0
        for owner in owners:
            self._settle(owner, generations.get(owner, 0), written.waiting.get(owner, frozenset()))

    def _settle(self, owner: str, generation: int, waiting: frozenset[RowKey]) -> None:
        """Note that an owner's rows of a generation are written."""
        self._strangers.discard(owner)
        found = self._owners.get(owner)
        if found is None:
            return
        before = self.state(owner)
        _reindex(self._waited, owner, found.waiting, waiting)
        found.written, found.waiting, found.refused = max(found.written, generation), waiting, None
        if not found.rows and found.written == found.generation:
            del self._owners[owner]
        if self.state(owner) != before:
            self._on_change(owner)

    def _refuse(self, owner: str, message: str) -> None:
        log.error("Leaving out rows that OVN's database refuses", extra={"owner": owner, "reason": message})
        found = self._owners.get(owner)
        if found is not None:
            found.refused = message
            self._on_change(owner)
        self._loop.call_later(REFUSED_RETRY_SECONDS, self._mark, [owner])

    def _tell_trouble(self, message: str | None) -> None:
        if message == self._trouble:
            return
        log.log(
            logging.WARNING if message else logging.INFO,
            "Waiting for OVN's database" if message else "Writing to OVN's database",
            extra={"action": "ovn", "reason": message},
        )
        self._trouble = message
        for owner, found in list(self._owners.items()):
            if found.written < found.generation:
                self._on_change(owner)

    def _want(self, owner: str, rows: tuple[Row, ...]) -> None:
        before = self._owners.get(owner)
        self._kept.discard(owner)
        self._generation += 1
        after = _Owner(rows, self._generation)
        if before is not None:
            after.written, after.waiting = before.written, before.waiting
            self._vanishing.setdefault(owner, set()).update(before.keys - after.keys)
        _reindex(self._needed, owner, before.needs if before else frozenset(), after.needs)
        self._owners[owner] = after
        self._mark([owner])

    def _mark(self, owners: Iterable[str]) -> None:
        self._dirty.update(dict.fromkeys(owners))
        if self._dirty:
            self._wake.set()

    def _take(self) -> list[str]:
        return list(self._dirty)[:MAX_BATCH]

    def _together(self, owners: Collection[str]) -> list[str]:
        """Return the owners with those that must be written with them: what names a row in its text, when that goes."""
        batch = dict.fromkeys(owners)
        for owner in owners:
            for key in self._vanishing.pop(owner, ()):
                batch.update(dict.fromkeys(self._needed.get(key, ())))
        for owner in batch:
            self._dirty.pop(owner, None)
        return list(batch)

    def _on_touched(self) -> None:
        """Hear from the connection's thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        """Check again whose rows have changed: what others did is repaired, what we did needs nothing."""
        touched = self._database.take_touched()
        known = touched.owners & self._owners.keys()
        strangers = touched.owners - known - self._kept
        self._strangers |= strangers
        self._mark(known | strangers if self._complete else known)
        for key in touched.keys:
            self._mark(self._needed.get(key, set()) | self._waited.get(key, set()))
        for port, (owner, up) in touched.up.items():
            if up != (port in self._up):
                (self._up.add if up else self._up.discard)(port)
                self._on_change(owner)


def _reindex(
    index: dict[RowKey, set[str]],
    owner: str,
    before: Collection[RowKey],
    after: Collection[RowKey],
) -> None:
    for key in before:
        members = index.get(key, set())
        members.discard(owner)
        if not members:
            index.pop(key, None)
    for key in after:
        index.setdefault(key, set()).add(owner)
