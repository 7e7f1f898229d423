"""Long actions: begun once, ended when no longer planned, tried again ever later."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_node.agent import works as works_module
from virtfleet_node.agent.entry import Entry, Work
from virtfleet_node.agent.works import Works, to_end
from virtfleet_node.core.actions import LongAction, WipeDisk
from virtfleet_node.core.errors import ConflictError

UID = "aaaaaaaa-2222-3333-4444-555555555555"
ACTION, OTHER = WipeDisk("default", "root"), WipeDisk("default", "data")


class Scene:
    """Works on one machine, whose actions do what the test says."""

    def __init__(self) -> None:
        machine = Machine(uid=UID, namespace="n", name="m", run=Run.RUNNING, hardware=Hardware(memory_bytes=1))
        self.entry = Entry(machine)
        self.begun: list[LongAction] = []
        self.woken = 0
        self.go_on = asyncio.Event()
        self.failure: Exception | None = None
        self.works = Works({UID: self.entry}, self._perform, str, self._wake)

    async def _perform(self, uid: str, work: Work) -> None:
        assert uid == UID
        self.begun.append(work.action)
        await self.go_on.wait()
        if self.failure:
            raise self.failure

    def _wake(self, uid: str) -> None:
        assert uid == UID
        self.woken += 1

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.001)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    await made.works.stop()


async def test_what_is_planned_again_and_again_is_begun_once_and_its_end_wakes_the_machine(scene: Scene) -> None:
    for _ in range(3):
        assert scene.works.further(scene.entry, ACTION)
        assert not await scene.works.settle(scene.entry, (ACTION,))
        await asyncio.sleep(0)
    assert (scene.begun, scene.woken) == ([ACTION], 1)
    scene.go_on.set()
    await scene.until(lambda: scene.entry.work is None)
    assert scene.woken == 2


async def test_what_is_planned_no_more_is_ended_before_anything_else_is_done(scene: Scene) -> None:
    scene.works.further(scene.entry, ACTION)
    await asyncio.sleep(0)
    task = scene.entry.work.task
    assert await scene.works.settle(scene.entry, (OTHER,))
    assert task.cancelled()
    assert scene.entry.work is None


async def test_a_failure_is_raised_once_and_tried_again_ever_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(works_module, "_FIRST_RETRY_SECONDS", 0.01)
    scene.failure = ConflictError("no room")
    scene.go_on.set()
    scene.works.further(scene.entry, ACTION)
    for failures in range(3):
        await scene.until(lambda count=failures: scene.entry.work.failures == count and scene.entry.work.error)
        with pytest.raises(ConflictError, match="no room"):
            scene.works.further(scene.entry, ACTION)
        assert not scene.works.further(scene.entry, ACTION)
    assert scene.begun == [ACTION] * 3


async def test_a_defect_is_a_failure_like_others(scene: Scene) -> None:
    scene.failure = RuntimeError("a defect")
    scene.go_on.set()
    scene.works.further(scene.entry, ACTION)
    await scene.until(lambda: scene.entry.work.error)
    assert "daemon's log" in str(scene.entry.work.error)


async def test_what_failed_and_is_wanted_no_more_is_not_begun_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(works_module, "_FIRST_RETRY_SECONDS", 0.01)
    scene.failure = ConflictError("no room")
    scene.go_on.set()
    scene.works.further(scene.entry, ACTION)
    await scene.until(lambda: scene.entry.work.error)
    with pytest.raises(ConflictError):
        scene.works.further(scene.entry, ACTION)
    await scene.works.settle(scene.entry, ())
    await asyncio.sleep(0.05)
    assert scene.begun == [ACTION]


async def test_a_call_in_a_thread_is_waited_for_even_when_its_task_is_cancelled() -> None:
    loop, begun, ended = asyncio.get_running_loop(), asyncio.Event(), []

    def call() -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run(asyncio.sleep(0.05))
        ended.append(True)

    task = asyncio.create_task(to_end(call))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
