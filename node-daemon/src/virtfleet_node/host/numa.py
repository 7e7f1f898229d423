"""The host's NUMA cells, from /sys/devices/system/node: a file or two for each, some microseconds."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from virtfleet_api.report import Hugepages, NumaCell
from virtfleet_node.core.numa.cpu_set import format_cpus, parse_cpus

_KIB: Final = 1024

_RECLAIMABLE: Final = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
"""What the kernel gives away without swapping, as MemAvailable counts it, which cells do not have."""


def read_cells(root: Path = Path("/"), usable: frozenset[int] | None = None) -> tuple[NumaCell, ...]:
    """Return the cells below `root`; of their CPUs those that this process may use, or `usable` ones.

    In a container or under a cpuset those are fewer than the host has, and libvirt is not given more.
    """
    allowed = frozenset(os.sched_getaffinity(0)) if usable is None else usable
    folders = (root / "sys/devices/system/node").glob("node[0-9]*")
    numbered = sorted((int(path.name.removeprefix("node")), path) for path in folders)
    return tuple(_cell(number, path, allowed) for number, path in numbered)


def _cell(number: int, folder: Path, allowed: frozenset[int]) -> NumaCell:
    meminfo = parse_meminfo(_read(folder / "meminfo"))
    return NumaCell(
        cell=number,
        cpus=format_cpus(parse_cpus(_read(folder / "cpulist")) & allowed),
        memory_bytes=meminfo.get("MemTotal", 0),
        free_bytes=sum(meminfo.get(name, 0) for name in _RECLAIMABLE),
        hugepages=tuple(_hugepages(folder / "hugepages")),
        distances=tuple(int(word) for word in _read(folder / "distance").split()),
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the sizes in a node's meminfo, in bytes."""
    found = re.findall(r"^Node \d+ ([\w()]+):\s+(\d+) kB", text, re.MULTILINE)
    return {name: int(size) * _KIB for name, size in found}


def _hugepages(folder: Path) -> Iterator[Hugepages]:
    """Yield the sizes of which the cell has any."""
    for path in sorted(folder.glob("hugepages-*kB")):
        size = int(path.name.removeprefix("hugepages-").removesuffix("kB")) * _KIB
        total, free = (int(_read(path / name) or 0) for name in ("nr_hugepages", "free_hugepages"))
        if total:
            yield Hugepages(page_bytes=size, total=total, free=free)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # another kernel or architecture: the field stays empty
