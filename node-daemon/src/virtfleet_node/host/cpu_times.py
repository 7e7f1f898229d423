"""How long each CPU has been busy, from /proc/stat."""

from pathlib import Path
from typing import Final

from virtfleet_node.core.numa.load import CpuTimes

_IDLE: Final = (3, 4)
"""Columns idle and iowait; those of guests, 8 and 9, are parts of user and nice (proc_stat(5))."""

_OWN: Final = 8
"""Columns that are not parts of others."""


def read_cpu_times(root: Path = Path("/")) -> dict[int, CpuTimes]:
    """Return the times of each CPU that is online, in clock ticks. Raises OSError."""
    return parse_cpu_times((root / "proc/stat").read_text())


def parse_cpu_times(text: str) -> dict[int, CpuTimes]:
    """Return the times in a /proc/stat."""
    lines = (line.split() for line in text.splitlines() if line.startswith("cpu"))
    return {int(name[3:]): _times(columns) for name, *columns in lines if name[3:].isdigit()}


def _times(columns: list[str]) -> CpuTimes:
    ticks = [int(column) for column in columns[:_OWN]]
    idle = sum(ticks[column] for column in _IDLE)
    return CpuTimes(busy=sum(ticks) - idle, idle=idle)
