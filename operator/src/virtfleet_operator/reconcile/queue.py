"""The keyed queue: one worker per key at a time, coalescing, backoff, delayed keys, bounded concurrency.

It is level-triggered: a key says "look at this", never what happened. Whatever is added while a key is being worked on
makes it be looked at once more afterwards.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

log: Final = logging.getLogger(__name__)

FIRST_DELAY_SECONDS: Final = 0.2
"""After a first failure: long enough for a watch event to arrive that explains a conflict."""

LONGEST_DELAY_SECONDS: Final = 60.0
"""Nothing stays wrong longer than a minute after its cause has gone."""

WORK_TIMEOUT_SECONDS: Final = 120.0
"""One look is a few requests of at most 30 s each; longer means it hangs."""


class QueueObserver(Protocol):
    """What is told of the queue's work, for metrics."""

    def depth(self, waiting: int) -> None:
        """Keys that wait for a worker."""

    def done(self, key: Hashable, result: str, waited_seconds: float, worked_seconds: float) -> None:
        """A key has been worked on."""


def next_delay(failures: int, chance: float) -> float:
    """Return seconds to wait after so many failures in a row; chance in 0..1 spreads the crowd over half of it."""
    longest = min(FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_DELAY_SECONDS)
    return longest * (0.5 + chance / 2)


class KeyedQueue(Generic[K]):
    """Keys waiting to be looked at."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        observer: QueueObserver,
        *,
        concurrency: int,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        """Take what looks at a key (and may return after how many seconds to look again).

        Errors of the expected types are logged as one line, others with their traceback; both are tried again.
        """
        self._work = work
        self._observer = observer
        self._concurrency = concurrency
        self._expected = expected
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: dict[K, float] = {}
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, tuple[float, asyncio.TimerHandle]] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Have the key looked at as soon as a worker is free."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._now()
            self._ready.put_nowait(key)
            self._observer.depth(len(self._waiting))

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key looked at after a while; the earliest of several wishes counts."""
        due = self._now() + seconds
        pending = self._timers.get(key)
        if pending:
            if pending[0] <= due:
                return
            pending[1].cancel()
        handle = asyncio.get_running_loop().call_at(due, self._fire, key)
        self._timers[key] = (due, handle)

    def forget(self, key: K) -> None:
        """Drop what is remembered of a key whose object is gone."""
        self._failures.pop(key, None)
        if pending := self._timers.pop(key, None):
            pending[1].cancel()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._concurrency):
                    group.create_task(self._run_worker(), name=f"queue worker {number}")
        finally:
            for _, handle in self._timers.values():
                handle.cancel()

    async def _run_worker(self) -> None:
        while True:
            key = await self._ready.get()
            waited = self._now() - self._waiting.pop(key)
            self._active.add(key)
            started = self._now()
            try:
                result = await self._look(key)
            finally:
                self._active.discard(key)
            self._observer.depth(len(self._waiting))
            self._observer.done(key, result, waited, self._now() - started)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _look(self, key: K) -> str:
        try:
            async with asyncio.timeout(WORK_TIMEOUT_SECONDS):
                delay = await self._work(key)
        except Exception as error:  # noqa: BLE001 -- whatever one key suffers from, the others go on
            self._retry(key, error)
            return "error"
        self._failures.pop(key, None)
        if delay is not None:
            self.add_after(key, delay)
        return "ok"

    def _retry(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = next_delay(failures, random.random())  # noqa: S311 -- spreads retries, keeps no secret
        unexpected = not isinstance(error, self._expected)
        log.log(
            logging.ERROR if unexpected else logging.WARNING,
            "Retrying %s after %s",
            key,
            type(error).__name__,
            extra={"action": "retry", "reason": str(error), "failures": failures, "delay_seconds": round(delay, 2)},
            exc_info=error if unexpected else None,
        )
        self.add_after(key, delay)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
