"""The keyed queue: one worker per key, coalescing, backoff, delays."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polling import until
from virtfleet_operator.reconcile import queue as queue_module
from virtfleet_operator.reconcile.queue import LONGEST_DELAY_SECONDS, KeyedQueue, next_delay


class Observer:
    def __init__(self) -> None:
        self.results: list[tuple[Hashable, str]] = []
        self.deepest = 0

    def depth(self, waiting: int) -> None:
        self.deepest = max(self.deepest, waiting)

    def done(self, key: Hashable, result: str, waited_seconds: float, worked_seconds: float) -> None:
        assert waited_seconds >= 0
        assert worked_seconds >= 0
        self.results.append((key, result))


@asynccontextmanager
async def running(
    work: Callable[[str], Awaitable[float | None]], concurrency: int = 4
) -> AsyncIterator[tuple[KeyedQueue[str], Observer]]:
    observer = Observer()
    queue: KeyedQueue[str] = KeyedQueue(work, observer, concurrency=concurrency, expected=(KeyError,))
    task = asyncio.create_task(queue.run())
    try:
        yield queue, observer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@given(st.integers(min_value=1, max_value=10_000), st.floats(min_value=0, max_value=1))
def test_delays_grow_to_a_bound(failures: int, chance: float) -> None:
    assert 0 < next_delay(failures, chance) <= LONGEST_DELAY_SECONDS
    assert next_delay(failures, 1.0) <= next_delay(failures + 1, 1.0)
    assert next_delay(failures, chance) >= next_delay(failures, 1.0) / 2


async def test_a_key_is_never_worked_on_twice_at_once() -> None:
    active: set[str] = set()
    runs = 0

    async def work(key: str) -> None:
        nonlocal runs
        assert key not in active
        active.add(key)
        await asyncio.sleep(0.001)
        active.discard(key)
        runs += 1

    async with running(work) as (queue, observer):
        for _ in range(50):
            queue.add("a")
            await asyncio.sleep(0.0005)
        await until(lambda: not active and queue._ready.empty() and not queue._again)
    assert runs == len(observer.results)
    assert all(result == "ok" for _, result in observer.results)


async def test_many_wishes_for_a_waiting_key_are_one_look() -> None:
    gate = asyncio.Event()
    seen: list[str] = []

    async def work(key: str) -> None:
        await gate.wait()
        seen.append(key)

    async with running(work, concurrency=1) as (queue, observer):
        queue.add("busy")
        await until(lambda: "busy" in queue._active)
        for _ in range(100):
            queue.add("a")
        assert observer.deepest == 1
        gate.set()
        await until(lambda: seen == ["busy", "a"])


async def test_a_wish_during_the_look_leads_to_one_more() -> None:
    gate = asyncio.Event()
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)
        await gate.wait()

    async with running(work) as (queue, _):
        queue.add("a")
        await until(lambda: seen == ["a"])
        queue.add("a")
        queue.add("a")
        gate.set()
        await until(lambda: seen == ["a", "a"])
        await asyncio.sleep(0.02)
        assert seen == ["a", "a"]


async def test_concurrency_is_bounded() -> None:
    active = most = 0

    async def work(_: str) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.002)
        active -= 1

    async with running(work, concurrency=3) as (queue, observer):
        for number in range(30):
            queue.add(str(number))
        await until(lambda: len(observer.results) == 30)
    assert most == 3


@pytest.mark.parametrize("error", [KeyError("expected"), ValueError("not expected")])
async def test_failures_are_tried_again_until_they_succeed(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue_module, "FIRST_DELAY_SECONDS", 0.002)
    left = 3

    async def work(_: str) -> None:
        nonlocal left
        if left:
            left -= 1
            raise error

    async with running(work) as (queue, observer):
        queue.add("a")
        await until(lambda: len(observer.results) == 4)
        assert [result for _, result in observer.results] == ["error", "error", "error", "ok"]
        assert queue._failures == {}
    with_traceback = [record for record in caplog.records if record.exc_info]
    assert len(with_traceback) == (3 if isinstance(error, ValueError) else 0)


async def test_a_hanging_look_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "WORK_TIMEOUT_SECONDS", 0.01)

    async def work(_: str) -> None:
        await asyncio.Event().wait()

    async with running(work) as (queue, observer):
        queue.add("a")
        await until(lambda: observer.results == [("a", "error")])


async def test_the_earliest_of_several_delays_counts() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    async with running(work) as (queue, _):
        queue.add_after("a", 60)
        queue.add_after("a", 0.01)
        queue.add_after("a", 30)
        await until(lambda: seen == ["a"])
        assert queue._timers == {}


async def test_work_can_ask_for_a_later_look_and_forget_drops_it() -> None:
    seen: list[str] = []

    async def work(key: str) -> float:
        seen.append(key)
        return 0.01 if len(seen) < 3 else 60

    async with running(work) as (queue, _):
        queue.add("a")
        await until(lambda: len(seen) == 3)
        await until(lambda: "a" in queue._timers)
        queue.forget("a")
        assert queue._timers == {}
