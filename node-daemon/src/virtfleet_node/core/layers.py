"""The layers of disks: which of them are disks now, which are still needed, and which no longer are. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from virtfleet_node.core.observed import AttachedDisk
from virtfleet_node.core.stored import StoredDisk

SUFFIX: Final = ".qcow2"

REMOVED: Final = ".removed"
"""Suffix of the empty file that says up to which number the layers of a disk are of one that was removed."""

_STEM: Final = re.compile(r"(?P<disk>[a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.(?P<number>[1-9][0-9]{0,8}))?")

Key = tuple[str, str, str]
"""Machine, pool and name of a disk."""

Removed = Mapping[Key, int]
"""Of the disks that were removed, while layers of theirs stay, the highest number of those layers.

What has a higher number is another disk, which was made under the same name since.
"""


@dataclass(frozen=True)
class Layer:
    """A file of a disk's chain."""

    pool: str
    machine_uid: str
    disk: str
    number: int
    path: Path
    capacity_bytes: int = 0
    allocated_bytes: int = 0
    below: Path | None = None
    """The layer that it lies on; None for one that lies on an image or on nothing."""
    image_uid: str | None = None
    """The image that it lies on."""

    @property
    def key(self) -> Key:
        """Return which disk it is of."""
        return self.machine_uid, self.pool, self.disk


def parse_name(file: str, suffix: str = SUFFIX) -> tuple[str, int] | None:
    """Return disk and number of a layer by its file's name; None for another file."""
    found = _STEM.fullmatch(file.removesuffix(suffix)) if file.endswith(suffix) else None
    return (found["disk"], int(found["number"] or 0)) if found else None


def build_name(disk: str, number: int, suffix: str = SUFFIX) -> str:
    """Return the name of a layer's file."""
    return f"{disk}.{number}{suffix}" if number else f"{disk}{suffix}"


def is_removed(layer: Layer, removed: Removed) -> bool:
    """Tell whether a layer is of a disk that was removed."""
    return layer.number <= removed.get(layer.key, -1)


def tips(layers: Iterable[Layer], removed: Removed = MappingProxyType({})) -> dict[Key, Layer]:
    """Return the layer that is each disk now: the one with the highest number, unless the disk was removed."""
    found: dict[Key, Layer] = {}
    for layer in layers:
        if not is_removed(layer, removed) and (layer.key not in found or found[layer.key].number < layer.number):
            found[layer.key] = layer
    return found


def chain(layer: Layer, by_path: dict[Path, Layer]) -> tuple[Layer, ...]:
    """Return the layers that one lies on, the nearest first; a circle, which nobody makes, ends."""
    found: list[Layer] = []
    while layer.below is not None and layer.below in by_path and by_path[layer.below] not in found:
        layer = by_path[layer.below]
        found.append(layer)
    return tuple(found)


def unneeded(
    layers: Iterable[Layer], named: AbstractSet[Path], removed: Removed = MappingProxyType({})
) -> tuple[Layer, ...]:
    """Return the layers that can be removed, those above before those that they lie on.

    Needed is what is a disk now, what a snapshot names, and whatever these lie on.
    """
    layers = tuple(layers)
    by_path = {layer.path: layer for layer in layers}
    kept = [*tips(layers, removed).values(), *(by_path[path] for path in named if path in by_path)]
    needed = {layer.path for one in kept for layer in (one, *chain(one, by_path))}
    rest = [layer for layer in layers if layer.path not in needed]
    return tuple(sorted(rest, key=lambda layer: len(chain(layer, by_path)), reverse=True))


def children(layers: Iterable[Layer]) -> Counter[Path]:
    """Return how many layers lie on each."""
    return Counter(layer.below for layer in layers if layer.below is not None)


def as_attached(disks: Iterable[StoredDisk], attached: Iterable[AttachedDisk]) -> tuple[StoredDisk, ...]:
    """Return the disks as a running guest has them.

    While layers are added it may still use the one below the highest: what it uses is the disk then.
    """
    in_use = {Path(disk.file) for disk in attached if disk.file}
    return tuple(_in_use(disk, in_use) for disk in disks)


def _in_use(disk: StoredDisk, in_use: AbstractSet[Path]) -> StoredDisk:
    if disk.path in in_use:
        return disk
    at = next((index for index, layer in enumerate(disk.layers) if layer in in_use), None)
    return disk if at is None else replace(disk, path=disk.layers[at], layers=disk.layers[at + 1 :])
