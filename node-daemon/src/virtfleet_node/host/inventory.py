"""What the host has: CPUs and memory. Read from /proc and /sys once, when the daemon starts."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KIB: Final = 1024
_MHZ: Final = 1_000_000
_KHZ: Final = 1000


@dataclass(frozen=True)
class Inventory:
    """The host's hardware."""

    architecture: str
    cpus: int
    cpu_frequency_hz: int
    memory_bytes: int


def read_inventory(root: Path = Path("/")) -> Inventory:
    """Return what the kernel says below `root` (proc/cpuinfo, proc/meminfo, sys/devices/system)."""
    return Inventory(
        architecture=platform.machine(),
        cpus=os.cpu_count() or 1,
        cpu_frequency_hz=_read_frequency(root),
        memory_bytes=parse_memory(_read(root / "proc/meminfo")),
    )


def parse_memory(meminfo: str) -> int:
    """Return MemTotal of /proc/meminfo or of a NUMA node's meminfo, in bytes; 0 when it is not there."""
    found = re.search(r"MemTotal:\s+(\d+) kB", meminfo)
    return int(found[1]) * _KIB if found else 0


def parse_frequency(cpuinfo: str) -> int:
    """Return the first CPU's frequency in /proc/cpuinfo, in hertz; 0 when it is not there."""
    found = re.search(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo, re.MULTILINE)
    return round(float(found[1])) * _MHZ if found else 0


def _read_frequency(root: Path) -> int:
    """Return the highest frequency, which is stable, else the present one."""
    highest = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").strip()
    return int(highest) * _KHZ if highest.isdigit() else parse_frequency(_read(root / "proc/cpuinfo"))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # another kernel or architecture: the field stays empty
