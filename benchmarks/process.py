"""What a process costs, from /proc (man 5 proc)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Memory now, CPU time since the process began."""

    rss_mib: float
    cpu_seconds: float


def read_cost(pid: int) -> Cost:
    """Return what a process costs."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Cost(resident / 1024, (int(fields[11]) + int(fields[12])) / _TICKS)
