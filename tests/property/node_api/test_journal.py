"""Whatever is published, and however often a reader is cut off, it ends with the journal's own state."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from simulated_node import build_node_report
from virtfleet_api.image import ImageReport
from virtfleet_api.node_api import (
    Heartbeat,
    ImageChanged,
    ImageRemoved,
    MachineChanged,
    NodeChanged,
    Snapshot,
    SnapshotChanged,
    SnapshotRemoved,
    WatchEvent,
)
from virtfleet_api.report import MachineReport, NodeReport, Phase
from virtfleet_api.snapshot import SnapshotReport
from virtfleet_api.vm_image import ImagePhase
from virtfleet_api.vm_snapshot import SnapshotPhase
from virtfleet_node.api.journal import Journal

NUMBERS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("machine"), NUMBERS, st.sampled_from([Phase.RUNNING, Phase.STOPPED, Phase.ABSENT])),
    st.tuples(st.just("image"), NUMBERS, st.sampled_from([ImagePhase.PENDING, ImagePhase.READY])),
    st.tuples(st.just("remove"), NUMBERS, st.none()),
    st.tuples(st.just("snapshot"), NUMBERS, st.sampled_from([SnapshotPhase.PENDING, SnapshotPhase.READY])),
    st.tuples(st.just("remove snapshot"), NUMBERS, st.none()),
    st.tuples(st.just("node"), NUMBERS, st.none()),
    st.tuples(st.just("read"), NUMBERS, st.none()),
    st.tuples(st.just("disconnect"), NUMBERS, st.none()),
    st.tuples(st.just("restart"), NUMBERS, st.none()),
)


def uid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


@dataclass
class State:
    """The state as a publisher or a reader has it."""

    node: NodeReport = field(default_factory=lambda: build_node_report("node-a"))
    machines: dict[str, MachineReport] = field(default_factory=dict)
    images: dict[str, ImageReport] = field(default_factory=dict)
    snapshots: dict[str, SnapshotReport] = field(default_factory=dict)

    def publish(self, journal: Journal, step: tuple[str, int, object]) -> None:
        match step:
            case ("machine", number, Phase() as phase):
                machine = MachineReport(uid=uid(number), namespace="shop", name="web", phase=phase)
                self.take(MachineChanged(cursor="", machine=machine))
                journal.publish_machine(machine)
            case ("image", number, ImagePhase() as phase):
                image = ImageReport(uid=uid(number), namespace="shop", name="disk", phase=phase)
                self.take(ImageChanged(cursor="", image=image))
                journal.publish_image(image)
            case ("remove", number, _):
                self.take(ImageRemoved(cursor="", uid=uid(number)))
                journal.remove_image(uid(number))
            case ("snapshot", number, SnapshotPhase() as phase):
                snapshot = SnapshotReport(
                    uid=uid(number), namespace="shop", name="before", machine_uid=uid(9), phase=phase
                )
                self.take(SnapshotChanged(cursor="", snapshot=snapshot))
                journal.publish_snapshot(snapshot)
            case ("remove snapshot", number, _):
                self.take(SnapshotRemoved(cursor="", uid=uid(number)))
                journal.remove_snapshot(uid(number))
            case ("node", number, _):
                self.node = self.node.model_copy(update={"cpus": number + 1})
                journal.publish_node(self.node)

    def take(self, event: WatchEvent) -> None:
        match event:
            case Snapshot():
                self.node = event.node
                self.machines = {report.uid: report for report in event.machines}
                self.images = {report.uid: report for report in event.images}
                self.snapshots = {report.uid: report for report in event.snapshots}
            case MachineChanged(machine=machine) if machine.phase is Phase.ABSENT:
                self.machines.pop(machine.uid, None)
            case MachineChanged(machine=machine):
                self.machines[machine.uid] = machine
            case ImageChanged(image=image):
                self.images[image.uid] = image
            case ImageRemoved():
                self.images.pop(event.uid, None)
            case SnapshotChanged(snapshot=snapshot):
                self.snapshots[snapshot.uid] = snapshot
            case SnapshotRemoved():
                self.snapshots.pop(event.uid, None)
            case NodeChanged():
                self.node = event.node

    def republish(self) -> Journal:
        """Return the journal of a new process that observes the same."""
        journal = Journal(self.node, ring=3)
        for machine in self.machines.values():
            journal.publish_machine(machine)
        for image in self.images.values():
            journal.publish_image(image)
        for snapshot in self.snapshots.values():
            journal.publish_snapshot(snapshot)
        return journal


async def follow(steps: list[tuple[str, int, object]]) -> tuple[State, State]:
    published, seen = State(), State()
    journal = published.republish()
    cursor: str | None = None
    events = journal.watch(cursor, heartbeat_seconds=0)

    async def read(count: int) -> None:
        nonlocal cursor
        for _ in range(count):
            event = await anext(events)
            seen.take(event)
            cursor = event.cursor

    for step in steps:
        match step[0]:
            case "read":
                await read(step[1])
            case "disconnect" | "restart":
                await events.aclose()
                journal = published.republish() if step[0] == "restart" else journal
                events = journal.watch(cursor, heartbeat_seconds=0)
            case _:
                published.publish(journal, step)
    async with aclosing(events):
        while True:
            event = await anext(events)
            seen.take(event)
            if isinstance(event, Heartbeat):
                return published, seen


@given(st.lists(STEPS, max_size=30))
def test_a_reader_ends_with_the_state_of_the_journal(steps: list[tuple[str, int, object]]) -> None:
    published, seen = asyncio.run(follow(steps))
    assert seen == published
