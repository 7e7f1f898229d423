"""Which layers to remove or to merge next. Pure, and called again after every step.

Merging goes downwards: the upper layer's data is written into the lower one, which nobody names and which nothing else
lies on. So nothing that a snapshot names is ever written, and a step that was cut off has changed no content.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Final

from virtfleet_node.core.layers import Key, Layer, Removed, chain, children, tips, unneeded

WORTH_BYTES: Final = 64 << 20
"""What the disk of a running guest must hold of its own before it gets a layer above it, so that this can be merged."""

WORTH_SHARE: Final = 16
"""And one part in so many of its capacity: each byte that a guest writes is merged once, not with each small write."""


@dataclass(frozen=True)
class RemoveLayer:
    """Remove a layer that nobody needs."""

    layer: Layer


@dataclass(frozen=True)
class MergeFiles:
    """Write the upper layer into the lower one, which then takes its place; no guest has either open."""

    lower: Layer
    upper: Layer


@dataclass(frozen=True)
class MergeLive:
    """Have QEMU write the upper layer into the lower one; the child lies on the lower one afterwards."""

    target: str
    lower: Layer
    upper: Layer
    child: Layer


@dataclass(frozen=True)
class AddLayer:
    """Give the disk of a running guest an empty layer above, so that what it has written can be merged."""

    target: str
    disk: Layer


Step = RemoveLayer | MergeFiles | MergeLive | AddLayer


@dataclass(frozen=True)
class Seen:
    """All layers of the node, and who has need of them."""

    layers: tuple[Layer, ...]
    named: frozenset[Path] = frozenset()
    """What snapshots name."""
    removed: Removed = field(default_factory=dict)
    guests: Mapping[str, Mapping[Path, str]] = field(default_factory=dict)
    """The disks of running guests, by machine: file and device name."""

    @cached_property
    def by_path(self) -> dict[Path, Layer]:
        """Return the layers by their files."""
        return {layer.path: layer for layer in self.layers}

    @cached_property
    def tips(self) -> Mapping[Key, Layer]:
        """Return the highest layer of each disk."""
        return tips(self.layers, self.removed)

    @cached_property
    def present(self) -> frozenset[Path]:
        """Return what is a disk now: the highest layers, and those that guests write."""
        written = (path for files in self.guests.values() for path in files)
        return frozenset((*(tip.path for tip in self.tips.values()), *written))

    @cached_property
    def children(self) -> Mapping[Path, int]:
        """Return how many layers lie on each."""
        return children(self.layers)

    def opened_by(self, uid: str) -> frozenset[Path]:
        """Return the layers that a machine's guest has open, as long as it runs."""
        if uid not in self.guests:
            return frozenset()
        tops = [self.by_path[path] for path in self.guests[uid] if path in self.by_path]
        tops += [tip for key, tip in self.tips.items() if key[0] == uid]
        return frozenset(layer.path for top in tops for layer in (top, *chain(top, self.by_path)))

    def child(self, layer: Layer) -> Layer | None:
        """Return the one layer that lies on this one; None when there is none, or more than one."""
        found = [other for other in self.layers if other.below == layer.path]
        return found[0] if len(found) == 1 else None

    def owners_below(self, uid: str) -> frozenset[str]:
        """Return the other machines whose layers a machine's disks lie on."""
        own = (layer for layer in self.layers if layer.machine_uid == uid)
        return frozenset(one.machine_uid for layer in own for one in chain(layer, self.by_path)) - {uid}

    def owners_above(self, layer: Layer) -> frozenset[str]:
        """Return the machines that have layers above this one, or this one."""
        above = (one for one in self.layers if layer in (one, *chain(one, self.by_path)))
        return frozenset(one.machine_uid for one in above)


def next_step(uid: str, seen: Seen, known: AbstractSet[str] = frozenset()) -> Step | None:
    """Return the next step for the layers of a machine; None when there is none, for now.

    `known` are the machines that look after layers of their own. Those of others, which are gone, are looked after by
    the machines whose disks lie on them.
    """
    mine = {uid, *(seen.owners_below(uid) - known)}
    opened = frozenset(path for guest in seen.guests for path in seen.opened_by(guest))
    for layer in unneeded(seen.layers, seen.named, seen.removed):
        if layer.machine_uid in mine and layer.path not in opened and not seen.children.get(layer.path):
            return RemoveLayer(layer)
    for lower, upper in _pairs(mine, seen):
        if not {lower.path, upper.path} & opened:
            return MergeFiles(lower, upper)
        if (step := _merge_live(uid, seen, lower, upper)) is not None:
            return step
    return _add_layer(uid, seen)


def machines_above(uid: str, layers: tuple[Layer, ...]) -> frozenset[str]:
    """Return the other machines that have layers above those that a machine's disks are made of."""
    by_path = {layer.path: layer for layer in layers}
    own = {one.path for layer in layers if layer.machine_uid == uid for one in (layer, *chain(layer, by_path))}
    others = (layer for layer in layers if layer.machine_uid != uid)
    return frozenset(
        layer.machine_uid for layer in others if own & {one.path for one in (layer, *chain(layer, by_path))}
    )


def bytes_needed(step: Step | None) -> int:
    """Return how much more of its pool the lower layer can take by a step, at most."""
    if not isinstance(step, MergeFiles | MergeLive):
        return 0
    return min(step.upper.allocated_bytes, max(0, step.upper.capacity_bytes - step.lower.allocated_bytes))


def _pairs(mine: AbstractSet[str], seen: Seen) -> list[tuple[Layer, Layer]]:
    """Return what can be merged, the lowest first, so that each byte is written once."""
    found = []
    for upper in seen.layers:
        lower = seen.by_path.get(upper.below) if upper.below else None
        if lower is not None and upper.machine_uid in mine and _can_be_written(lower, upper, seen):
            found.append((lower, upper))
    return sorted(found, key=lambda pair: (len(chain(pair[0], seen.by_path)), pair[0].path))


def _can_be_written(lower: Layer, upper: Layer, seen: Seen) -> bool:
    return (
        lower.key == upper.key
        and lower.path not in seen.named
        and lower.path not in seen.present
        and seen.children.get(lower.path) == 1
    )


def _merge_live(uid: str, seen: Seen, lower: Layer, upper: Layer) -> MergeLive | None:
    """Return the merge by QEMU, where one guest alone has the layers and no other machine has need of them."""
    child = seen.child(upper)
    if child is None or upper.path in seen.present or seen.owners_above(lower) != {uid}:
        return None
    for path, target in seen.guests.get(uid, {}).items():
        top = seen.by_path.get(path)
        if top is not None and child in (top, *chain(top, seen.by_path)):
            return MergeLive(target, lower, upper, child)
    return None


def _add_layer(uid: str, seen: Seen) -> AddLayer | None:
    for path, target in seen.guests.get(uid, {}).items():
        disk = seen.by_path.get(path)
        lower = seen.by_path.get(disk.below) if disk and disk.below else None
        if disk is None or lower is None or disk not in seen.tips.values() or path in seen.named:
            continue  # a layer above it that it does not write yet was left by what was cut off
        worth = disk.allocated_bytes >= max(WORTH_BYTES, disk.capacity_bytes // WORTH_SHARE)
        if worth and _can_be_written(lower, disk, seen) and seen.owners_above(lower) == {uid}:
            return AddLayer(target, disk)
    return None


class Recovery(StrEnum):
    """What to do about a merge by QEMU that nobody waits for any more."""

    FINISH = "finish"
    """QEMU is done: what has named the upper layer names the lower one, and the upper one goes."""
    PUT_BACK = "put back"
    """The child lies on the lower layer, which QEMU may not have written in full: the upper one has it all still."""
    FORGET = "forget"
    """The child is where it was, or gone."""


def recover(lower: Path, upper: Path, child: Layer | None, *, upper_there: bool, running: bool) -> Recovery:
    """Return what to do about one that had begun."""
    if child is None or child.below != lower or upper == lower:
        return Recovery.FORGET
    if running or not upper_there:
        return Recovery.FINISH
    return Recovery.PUT_BACK
