"""The machines that wait for room, and the look at them together when room may have come.

A machine waits here with what it asks and what it was told. All other machines without a node wait for something else,
or for the nodes' first reports, and are simply looked at again.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from virtfleet_operator.core.place import Candidate, Need, Surroundings
from virtfleet_operator.core.placement.sweep import Waiter, sweep
from virtfleet_operator.kube.cache import Cache, Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import BY_NODE, MACHINE, UNBOUND

RESTATED_AT_ONCE: Final = 50
"""Machines whose reason alone has changed cost a write each, and nobody waits for it: a few at a time."""

RESTATE_SECONDS: Final = 1.0
"""Until the next few."""


class Unplaced:
    """Machines that no node could take when they were looked at last."""

    def __init__(self) -> None:
        self._waiters: dict[Key, Waiter[Key]] = {}

    def wait(self, key: Key, need: Need, told: str) -> None:
        """Have a machine wait for room."""
        self._waiters[key] = Waiter(key, need, told)

    def forget(self, key: Key) -> None:
        """Have a machine wait for room no more."""
        self._waiters.pop(key, None)

    async def look(
        self, cache: Cache, candidates: Callable[[], Iterable[Candidate]], around: Surroundings
    ) -> tuple[list[Key], float | None]:
        """Return which machines to look at now, and after how many seconds to ask for more, if there are more."""
        unbound = sorted(cache.find(MACHINE, BY_NODE, UNBOUND), key=_age)
        keys = [stored.key for stored in unbound if stored.key not in self._waiters]
        rest = tuple(self._waiters[stored.key] for stored in unbound if stored.key in self._waiters)
        outdated: list[Key] = []
        refused: dict[str, str] = {}
        while rest:
            found = sweep(rest, candidates(), around, refused)
            keys.extend(found.fitting)
            outdated.extend(found.outdated)
            rest = found.rest
            await asyncio.sleep(0)  # thousands of different wishes take seconds: others go on meanwhile
        keys.extend(outdated[:RESTATED_AT_ONCE])
        return keys, RESTATE_SECONDS if len(outdated) > RESTATED_AT_ONCE else None


def _age(stored: Stored) -> tuple[datetime, Key]:
    """The machine that was created first is looked at first."""
    return stored.meta.creation_timestamp or datetime.min.replace(tzinfo=UTC), stored.key
