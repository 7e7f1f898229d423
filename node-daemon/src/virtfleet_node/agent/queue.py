"""A queue of keys: one worker per key at a time, repeated keys melt into one, failures come back later."""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

_LOG = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 0.5
_LONGEST_RETRY_SECONDS: Final = 30.0
"""A failure that lasts is looked at twice a minute."""

_DOUBLINGS: Final = 6


class QueueObserver(Protocol):
    """What is told of the queue's work, for metrics."""

    def depth(self, waiting: int) -> None:
        """Keys that wait for a worker."""

    def done(self, *, failed: bool, seconds: float) -> None:
        """A key has been worked on."""


class Unobserved:
    """Tells nobody."""

    def depth(self, waiting: int) -> None:
        """Keys that wait for a worker."""

    def done(self, *, failed: bool, seconds: float) -> None:
        """A key has been worked on."""


class KeyedQueue:
    """Calls `work(key)` for every key that was added since its last call began."""

    def __init__(
        self, work: Callable[[str], Awaitable[None]], workers: int, observer: QueueObserver | None = None
    ) -> None:
        self._work = work
        self._observer = observer or Unobserved()
        self._workers = workers
        self._ready: deque[str] = deque()
        self._waiting: set[str] = set()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to work."""
        self._tasks = [asyncio.create_task(self._run(), name=f"queue-{n}") for n in range(self._workers)]

    async def stop(self) -> None:
        """Cancel what is being worked on; every key is found again at the next start."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def add(self, key: str) -> None:
        """Have a key worked on as soon as possible."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._wake.release()
            self._observer.depth(len(self._ready))

    def add_after(self, key: str, seconds: float) -> None:
        """Have a key worked on after some time; replaces what was asked for before."""
        self.forget_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(max(seconds, 0.0), self._fire, key)

    def forget_timer(self, key: str) -> None:
        """Drop what `add_after` asked for."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    def _fire(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _run(self) -> None:
        while True:
            await self._wake.acquire()
            key = self._ready.popleft()
            self._waiting.discard(key)
            self._busy.add(key)
            self._observer.depth(len(self._ready))
            begun, failed = self._now(), False
            try:
                await self._work(key)
                self._failures.pop(key, None)
            except Exception:  # noqa: BLE001 -- logged with its traceback; one machine never stops the others
                failed = True
                self._retry(key)
            finally:
                self._busy.discard(key)
            self._observer.done(failed=failed, seconds=self._now() - begun)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _retry(self, key: str) -> None:
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(_FIRST_RETRY_SECONDS * 2.0 ** min(count, _DOUBLINGS), _LONGEST_RETRY_SECONDS)
        delay *= random.uniform(0.8, 1.2)  # noqa: S311 -- spreads retries, guards nothing
        _LOG.warning("Retrying after a failure", exc_info=True, extra={"uid": key, "seconds": round(delay, 1)})
        self.add_after(key, delay)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
