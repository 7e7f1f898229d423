"""Folding of layers on generated trees: whatever is cut off on the way, nobody's content changes, and it ends."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from virtfleet_node.core.layers import Layer, build_name, chain, parse_name
from virtfleet_node.core.plan_merge import (
    WORTH_BYTES,
    AddLayer,
    MergeFiles,
    MergeLive,
    Recovery,
    RemoveLayer,
    Seen,
    Step,
    bytes_needed,
    machines_above,
    next_step,
    recover,
)

POOL = Path("/pool/disks")
BLOCKS = range(4)
SMALL, LARGE = 1 << 20, WORTH_BYTES
MACHINES = ("a", "b", "c")


@dataclass
class Node:
    """A node's layers with what is in them, and who names them."""

    layers: dict[Path, Layer] = field(default_factory=dict)
    data: dict[Path, dict[int, int]] = field(default_factory=dict)
    snapshots: dict[str, Path] = field(default_factory=dict)
    guests: dict[str, Path] = field(default_factory=dict)
    """What the guest of each running machine writes."""
    intents: list[MergeLive] = field(default_factory=list)
    known: frozenset[str] = frozenset(MACHINES)
    unflushed: dict[Path, dict[int, int]] = field(default_factory=dict)
    """What a layer holds again when the QEMU ends that has written it."""

    def seen(self) -> Seen:
        guests = {machine: {path: "vda"} for machine, path in self.guests.items()}
        return Seen(tuple(self.layers.values()), frozenset(self.snapshots.values()), guests=guests)

    def read(self, path: Path) -> dict[int, int]:
        """Return what is read through a layer."""
        found: dict[int, int] = {}
        for layer in reversed((self.layers[path], *chain(self.layers[path], self.layers))):
            found |= self.data[layer.path]
        return found

    def promised(self) -> dict[tuple[str, str], dict[int, int]]:
        """Return the content that must stay: that of snapshots, of disks, and of what guests have."""
        disks = self.tips()
        return (
            {("snapshot", name): self.read(path) for name, path in self.snapshots.items()}
            | {("disk", key): self.read(path) for key, path in disks.items()}
            | {("guest", machine): self.read(path) for machine, path in self.guests.items()}
        )

    def tips(self) -> dict[str, Path]:
        found: dict[str, Layer] = {}
        for layer in self.layers.values():
            if layer.machine_uid not in found or found[layer.machine_uid].number < layer.number:
                found[layer.machine_uid] = layer
        return {machine: layer.path for machine, layer in found.items()}

    def measure(self) -> tuple[int, int]:
        """Return what every step makes smaller."""
        written = sum(self.layers[path].allocated_bytes >= WORTH_BYTES for path in self.guests.values())
        return written, len(self.layers)

    def apply(self, step: Step) -> Iterator[str]:
        """Carry out a step; it may be cut off after each part of it."""
        match step:
            case RemoveLayer(layer):
                assert not any(other.below == layer.path for other in self.layers.values())
                del self.layers[layer.path]
            case MergeFiles(lower, upper):
                yield from self._write(lower, upper)
                self.layers[upper.path] = replace(self.layers.pop(lower.path), path=upper.path, number=upper.number)
                self.data[upper.path] = self.data.pop(lower.path)
            case MergeLive(_, lower, upper, child):
                self.intents.append(step)
                yield "intent"
                self.unflushed[lower.path] = dict(self.data[lower.path])
                yield from self._write(lower, upper)
                self.layers[child.path] = replace(self.layers[child.path], below=lower.path)
                yield "done"
                yield from self._finish(step)
            case AddLayer(_, disk):
                path = POOL / disk.machine_uid / build_name("root", disk.number + 1)
                if path not in self.layers:
                    self.layers[path] = replace(
                        disk, path=path, number=disk.number + 1, below=disk.path, allocated_bytes=0
                    )
                    self.data[path] = {}
                yield "made"
                self.guests[disk.machine_uid] = path

    def _write(self, lower: Layer, upper: Layer) -> Iterator[str]:
        assert lower.path not in {*self.snapshots.values(), *self.guests.values()}
        for block, value in self.data[upper.path].items():
            self.data[lower.path][block] = value
            yield "written"
        self.layers[lower.path] = replace(lower, allocated_bytes=max(lower.allocated_bytes, upper.allocated_bytes))

    def end(self, machine: str) -> None:
        """Have a guest end at once."""
        if self.guests.pop(machine, None):
            self.data.update({path: data for path, data in self.unflushed.items() if path.parent.name == machine})

    def _finish(self, step: MergeLive) -> Iterator[str]:
        self.unflushed.clear()
        for name, path in self.snapshots.items():
            if path == step.upper.path:
                self.snapshots[name] = step.lower.path
                yield "renamed"
        self.layers.pop(step.upper.path, None)
        yield "removed"
        self.intents.remove(step)

    def recover(self) -> None:
        """Do what a new process does first."""
        for step in tuple(self.intents):
            child = self.layers.get(step.child.path)
            there = step.upper.path in self.layers
            running = step.child.machine_uid in self.guests
            match recover(step.lower.path, step.upper.path, child, upper_there=there, running=running):
                case Recovery.FINISH:
                    tuple(self._finish(step))
                    continue
                case Recovery.PUT_BACK:
                    assert child is not None
                    self.layers[child.path] = replace(child, below=step.upper.path)
            self.intents.remove(step)


@st.composite
def nodes(draw: st.DrawFn, most: int = len(MACHINES)) -> Node:
    """Return machines with a disk each, whose layers lie on each other as snapshots and restores leave them."""
    node = Node()
    machines = MACHINES[: draw(st.integers(1, most))]
    for _ in range(draw(st.integers(3, 12))):
        machine = draw(st.sampled_from(machines))
        numbers = [layer.number for layer in node.layers.values() if layer.machine_uid == machine]
        number = max(numbers, default=-1) + 1
        own = [layer for layer in node.layers.values() if layer.machine_uid == machine]
        older = [layer for layer in node.layers.values() if layer.machine_uid < machine]
        below = draw(st.sampled_from([*own, *own[-2:], *own[-2:], *older, None]))
        path = POOL / machine / build_name("root", number)
        allocated = draw(st.sampled_from([SMALL, LARGE]))
        node.layers[path] = Layer(
            "default", machine, "root", number, path, 1 << 30, allocated, below=below.path if below else None
        )
        node.data[path] = draw(st.dictionaries(st.sampled_from(BLOCKS), st.integers(1, 9), max_size=3))
    for index, path in enumerate(draw(st.lists(st.sampled_from(list(node.layers)), max_size=4))):
        node.snapshots[str(index)] = path
    tips = node.tips()
    for machine in draw(st.sets(st.sampled_from(sorted(tips)))):
        tip = node.layers[tips[machine]]
        late = tip.below is not None and tip.below.parent == tip.path.parent and draw(st.integers(0, 3)) == 0
        node.guests[machine] = tip.below if late and tip.below and not node.data[tip.path] else tip.path
    node.known = frozenset(draw(st.sets(st.sampled_from(machines)))) | node.guests.keys()
    return node


def work(node: Node, data: st.DataObject | None = None) -> None:
    """Fold until nothing is left to do; with `data`, steps are cut off, and guests start and end meanwhile."""
    crashes = 6 if data else 0
    progress = True
    while progress:
        progress = False
        for machine in MACHINES:
            before = node.measure()
            step = next_step(machine, node.seen(), node.known)
            if step is None:
                continue
            progress = True
            promised = node.promised()
            at_most = data.draw(st.integers(0, 6), label=str(step)) if data and crashes else 99
            for done, _ in enumerate(node.apply(step)):
                assert kept(node, promised), step
                if done >= at_most:
                    break
            else:
                assert node.measure() < before, step
            assert kept(node, promised), step
            if data and crashes:
                crashes -= 1
                for other, tip in node.tips().items():
                    if data.draw(st.booleans(), label=f"{other} is off"):
                        node.end(other)
                    elif other not in node.guests and not node.intents:
                        node.guests[other] = tip
                node.recover()
                node.unflushed.clear()
                assert not node.intents
                assert kept(node, promised), step


def kept(node: Node, promised: dict[tuple[str, str], dict[int, int]]) -> bool:
    now = node.promised()
    return all(now.get(name, content) == content for name, content in promised.items())


@settings(max_examples=150)
@given(nodes(), st.data())
def test_nobodys_content_changes_whatever_is_cut_off(node: Node, data: st.DataObject) -> None:
    disks = {name: content for name, content in node.promised().items() if name[0] != "guest"}
    work(node, data)
    now = node.promised()
    assert all(now[name] == content for name, content in disks.items()), "none is lost, either"


@given(nodes())
def test_every_step_gets_closer_to_the_end(node: Node) -> None:
    work(node)
    node.snapshots.clear()
    work(node)


@given(nodes())
def test_what_nobody_names_becomes_one_file_for_each_disk_that_is_off(node: Node) -> None:
    node.snapshots.clear()
    node.guests.clear()
    work(node)
    seen = node.seen()
    for machine in seen.by_path and node.tips():
        own = [layer for layer in seen.layers if layer.machine_uid == machine]
        shared = [layer for layer in own if seen.owners_above(layer) != {machine}]
        assert len(own) <= 1 or shared, "only what others lie on holds more"


@given(nodes(1))
def test_a_running_machine_keeps_two_files_at_most(node: Node) -> None:
    node.snapshots.clear()
    work(node)
    late = set(node.guests.values()) - set(node.tips().values())
    assert len(node.layers) <= 1 + len(node.guests) + len(late)


@given(nodes(1))
def test_a_chain_is_as_long_as_it_has_names_and_two(node: Node) -> None:
    work(node)
    named = set(node.snapshots.values())
    for path in node.tips().values():
        below = [layer.path for layer in chain(node.layers[path], node.layers)]
        branches = [one for one in below if sum(other.below == one for other in node.layers.values()) > 1]
        late = set(node.guests.values()) & set(below)
        assert len(below) <= len(named | set(branches) | late) + 1


@given(nodes())
def test_only_machines_whose_guests_matter_are_asked(node: Node) -> None:
    """What next_step says of a machine is the same when other guests than those it is told of are not known."""
    for machine in MACHINES:
        told = machines_above(machine, tuple(node.layers.values())) | {machine}
        all_known = node.seen()
        some = replace(all_known, guests={uid: files for uid, files in all_known.guests.items() if uid in told})
        assert next_step(machine, some, node.known) == next_step(machine, all_known, node.known)
        own = replace(all_known, guests={uid: files for uid, files in all_known.guests.items() if uid == machine})
        assert next_step(machine, own) is not None or next_step(machine, all_known, node.known) is None


@given(nodes())
def test_no_step_needs_more_room_than_the_upper_layer_takes(node: Node) -> None:
    for machine in MACHINES:
        step = next_step(machine, node.seen(), node.known)
        most = step.upper.allocated_bytes if isinstance(step, MergeFiles | MergeLive) else 0
        assert 0 <= bytes_needed(step) <= most


def test_a_guest_that_has_written_little_gets_no_layer_above() -> None:
    lower, disk = (POOL / "a" / build_name("root", number) for number in (0, 1))
    name = parse_name(disk.name)
    assert name == ("root", 1)
    below = Layer("default", "a", "root", 0, lower, 1 << 40)
    for allocated, worth in ((WORTH_BYTES, False), ((1 << 40) // 16, True)):
        above = Layer("default", "a", "root", 1, disk, 1 << 40, allocated, below=lower)
        seen = Seen((below, above), guests={"a": {disk: "vda"}})
        assert (next_step("a", seen) == AddLayer("vda", above)) == worth
