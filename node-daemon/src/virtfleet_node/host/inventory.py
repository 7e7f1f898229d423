"""What the host has: CPUs and memory. Read from /proc and /sys once, when the daemon starts."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtfleet_node.core.host_cpu import CGROUP_V1, CGROUP_V2, WeightScale

_KIB: Final = 1024
_MHZ: Final = 1_000_000
_KHZ: Final = 1000


@dataclass(frozen=True)
class Inventory:
    """The host's hardware."""

    architecture: str
    cpus: int
    cpu_frequency_hz: int
    """Nominal, of one CPU; 0 when it cannot be found out."""
    weight_scale: WeightScale | None
    """How control groups count CPU weights; None where there are none."""
    memory_bytes: int


def read_inventory(root: Path = Path("/"), cpu_frequency_hz: int | None = None) -> Inventory:
    """Return what the kernel says below `root` (proc/cpuinfo, proc/meminfo, sys/devices/system, sys/fs/cgroup).

    `cpu_frequency_hz` is what the administrator says of it.
    """
    return Inventory(
        architecture=platform.machine(),
        cpus=os.cpu_count() or 1,
        cpu_frequency_hz=cpu_frequency_hz or _read_frequency(root),
        weight_scale=_read_weight_scale(root / "sys/fs/cgroup"),
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
    """Return the frequency that all CPUs can keep up; else the highest, which is stable; else the present one.

    https://docs.kernel.org/admin-guide/pm/intel_pstate.html (base_frequency), .../cpufreq.html (cpuinfo_max_freq).
    """
    for name in ("base_frequency", "cpuinfo_max_freq"):
        found = _read(root / "sys/devices/system/cpu/cpu0/cpufreq" / name).strip()
        if found.isdigit() and int(found):
            return int(found) * _KHZ
    return parse_frequency(_read(root / "proc/cpuinfo"))


def _read_weight_scale(folder: Path) -> WeightScale | None:
    """Choose as libvirt does: version 2 where it has the CPUs, else version 1."""
    if "cpu" in _read(folder / "cgroup.controllers").split():
        return CGROUP_V2
    return CGROUP_V1 if (folder / "cpu" / "cgroup.procs").exists() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # another kernel or architecture: the field stays empty
