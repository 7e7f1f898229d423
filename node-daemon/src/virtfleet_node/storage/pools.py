"""The pools of the node: directories that its configuration names."""

import os
from collections.abc import Mapping
from pathlib import Path

from virtfleet_api.report import PoolReport
from virtfleet_node.core.errors import InvalidError
from virtfleet_node.storage.files import make_folder


class Pools:
    """Pools by name."""

    def __init__(self, configs: Mapping[str, Path]) -> None:
        self._paths = dict(configs)

    def prepare(self) -> None:
        """Make the pools' folders where they are missing."""
        for path in self._paths.values():
            path.mkdir(parents=True, exist_ok=True)
            for name in ("disks", "images"):
                make_folder(path / name)

    def names(self) -> tuple[str, ...]:
        """Return the names, in order."""
        return tuple(sorted(self._paths))

    def folder(self, pool: str, kind: str) -> Path:
        """Return the folder of a pool for `disks` or `images`; InvalidError when the node has no such pool."""
        try:
            return self._paths[pool] / kind
        except KeyError:
            raise InvalidError(f"This node has no pool {pool}; it has: {', '.join(self.names())}.") from None

    def free_bytes(self, pool: str) -> int:
        """Return the free space of a pool's file system."""
        found = os.statvfs(self.folder(pool, ""))
        return found.f_bavail * found.f_frsize

    def reports(self) -> tuple[PoolReport, ...]:
        """Return size and free space of each pool, in bytes."""
        return tuple(self._report(name) for name in self.names())

    def _report(self, name: str) -> PoolReport:
        found = os.statvfs(self._paths[name])
        return PoolReport(
            name=name, capacity_bytes=found.f_blocks * found.f_frsize, free_bytes=found.f_bavail * found.f_frsize
        )
