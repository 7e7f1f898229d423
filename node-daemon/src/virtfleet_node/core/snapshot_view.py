"""A snapshot as the node has it, and what a restore of one machine would do with it."""

from dataclasses import dataclass
from pathlib import Path

from virtfleet_node.core.captured import KeptSnapshot


@dataclass(frozen=True)
class SnapshotView:
    """What a plan looks at."""

    kept: KeptSnapshot
    below: dict[str, Path]
    """Files of the snapshot's disks that are there, by their names."""
    next_files: dict[tuple[str, str], str]
    """Name of the next layer of each disk of the machine that is there, by pool and name."""
    unreadable: str = ""
    """Why the memory image cannot be read; empty when it can, or when there is none."""
