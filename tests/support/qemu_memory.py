"""Where the memory of a QEMU lies, from /proc/<pid>/numa_maps: what the kernel does, whatever libvirt says."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mapping:
    """A part of the memory."""

    policy: str
    bytes_by_cell: dict[int, int]
    huge: bool

    @property
    def size_bytes(self) -> int:
        return sum(self.bytes_by_cell.values())

    def share(self, cell: int) -> float:
        """Return which part of it lies on a cell."""
        return self.bytes_by_cell.get(cell, 0) / max(1, self.size_bytes)


def mappings(pid: int) -> tuple[Mapping, ...]:
    """Return all parts, the largest first; a guest's memory is by far the largest."""
    found = (_mapping(line) for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines())
    return tuple(sorted(found, key=lambda mapping: -mapping.size_bytes))


def _mapping(line: str) -> Mapping:
    page = re.search(r"kernelpagesize_kB=(\d+)", line)
    size = int(page[1]) << 10 if page else 4096
    cells = {int(cell): int(pages) * size for cell, pages in re.findall(r" N(\d+)=(\d+)", line)}
    return Mapping(line.split()[1], cells, " huge" in line)
