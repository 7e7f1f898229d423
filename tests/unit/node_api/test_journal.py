import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from virtfleet_api.image import ImageReport
from virtfleet_api.node_api import (
    Heartbeat,
    ImageChanged,
    ImageRemoved,
    MachineChanged,
    NodeChanged,
    Snapshot,
    WatchEvent,
)
from virtfleet_api.report import MachineReport, NodeReport, Phase
from virtfleet_node.api.journal import Journal

Machine = Callable[..., MachineReport]
Image = Callable[..., ImageReport]


async def read(journal: Journal, count: int, cursor: str | None = None) -> list[WatchEvent]:
    async with asyncio.timeout(5), aclosing(journal.watch(cursor, heartbeat_seconds=0.001)) as events:
        return [await anext(events) for _ in range(count)]


async def test_a_reader_without_a_cursor_gets_the_whole_state(node: NodeReport, machine: Machine, image: Image) -> None:
    journal = Journal(node)
    journal.publish_machine(machine(1))
    journal.publish_image(image(2))
    (snapshot,) = await read(journal, 1)
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.node, snapshot.machines, snapshot.images) == (node, (machine(1),), (image(2),))


async def test_a_reader_resumes_with_what_it_has_not_seen(node: NodeReport, machine: Machine, image: Image) -> None:
    journal = Journal(node)
    journal.publish_machine(machine(1))
    (snapshot,) = await read(journal, 1)
    journal.publish_machine(machine(1, Phase.STOPPED))
    journal.publish_image(image(2))
    journal.remove_image(image(2).uid)
    journal.publish_node(node.model_copy(update={"cpus": 9}))
    events = await read(journal, 5, snapshot.cursor)
    assert [type(event) for event in events] == [MachineChanged, ImageChanged, ImageRemoved, NodeChanged, Heartbeat]
    assert [type(event) for event in await read(journal, 2, events[1].cursor)] == [ImageRemoved, NodeChanged]


async def test_a_reader_that_waits_is_told_at_once(node: NodeReport, machine: Machine) -> None:
    journal = Journal(node)
    async with asyncio.timeout(5), aclosing(journal.watch(None, heartbeat_seconds=60)) as events:
        await anext(events)
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        journal.publish_machine(machine(1))
        assert isinstance(await following, MachineChanged)


async def test_nothing_is_told_twice(node: NodeReport, machine: Machine, image: Image) -> None:
    journal = Journal(node)
    for _ in range(2):
        journal.publish_machine(machine(1))
        journal.publish_image(image(2))
        journal.publish_node(node)
    for _ in range(2):
        journal.publish_machine(machine(1, Phase.ABSENT))
        journal.remove_image(image(2).uid)
    (snapshot,) = await read(journal, 1)
    assert snapshot.cursor.endswith(":4")
    assert isinstance(snapshot, Snapshot)
    assert snapshot.machines == snapshot.images == ()


async def test_a_machine_that_comes_back_is_told_of(node: NodeReport, machine: Machine) -> None:
    journal = Journal(node)
    for phase in (Phase.RUNNING, Phase.ABSENT, Phase.RUNNING, Phase.ABSENT):
        journal.publish_machine(machine(1, phase))
    (snapshot,) = await read(journal, 1)
    assert snapshot.cursor.endswith(":4")


async def test_who_comes_back_too_late_gets_the_whole_state(node: NodeReport, machine: Machine) -> None:
    journal = Journal(node, ring=3)
    journal.publish_machine(machine(1))
    (old,) = await read(journal, 1)
    for number in range(2, 6):
        journal.publish_machine(machine(number))
    (event,) = await read(journal, 1, old.cursor)
    assert isinstance(event, Snapshot)
    assert len(event.machines) == 5


@pytest.mark.parametrize(
    "cursor", ["", "x", ":", "1:1", "{process}:", "{process}:-1", "{process}:99", "{process}:" + "9" * 50]
)
async def test_a_strange_cursor_gets_the_whole_state(node: NodeReport, machine: Machine, cursor: str) -> None:
    journal = Journal(node)
    journal.publish_machine(machine(1))
    (first,) = await read(journal, 1)
    (event,) = await read(journal, 1, cursor.format(process=first.cursor.partition(":")[0]))
    assert isinstance(event, Snapshot)


async def test_another_process_does_not_know_the_cursor(node: NodeReport) -> None:
    (first,) = await read(Journal(node), 1)
    (event,) = await read(Journal(node), 1, first.cursor)
    assert isinstance(event, Snapshot)


async def test_a_reader_that_lags_behind_the_ring_costs_no_more_than_it(node: NodeReport, machine: Machine) -> None:
    journal = Journal(node, ring=2)
    async with asyncio.timeout(5), aclosing(journal.watch(None, heartbeat_seconds=60)) as events:
        await anext(events)
        for number in range(100):
            journal.publish_machine(machine(number))
        event = await anext(events)
    assert isinstance(event, Snapshot)
    assert len(journal._changes) == 2
