"""How much CPU a guest wants, from what it has used and how long its vCPUs have waited for a CPU.

What it was given says little: it may have wanted more. A vCPU that is ready to run and waits for its turn does: the
kernel counts that time (/proc/PID/task/TID/schedstat), and libvirt shows it (vcpu.N.delay).
"""

from dataclasses import dataclass
from typing import Final

_DECAY: Final = 0.25
"""A guest's demand is believed to fall to a quarter in a second at most: a pause between two bursts is none."""

_BUSY: Final = 0.05
"""CPUs from which a guest is taken for busy, where waiting is not counted."""


@dataclass(frozen=True)
class CpuCounters:
    """What libvirt counts of a running domain since its start."""

    used_ns: int
    vcpus: int = 1
    waited_ns: int | None = None
    """Of all vCPUs together; None where it is not counted."""


@dataclass(frozen=True)
class CpuUse:
    """What a guest has had over a while, in CPUs."""

    used: float
    waited: float | None = None


def use_between(before: CpuCounters, now: CpuCounters, seconds: float) -> CpuUse | None:
    """Return the use between two looks; None when the domain was started anew."""
    if seconds <= 0 or now.used_ns < before.used_ns:
        return None
    waited = None
    if before.waited_ns is not None and now.waited_ns is not None:
        waited = max(0, now.waited_ns - before.waited_ns) / 1e9 / seconds
    return CpuUse((now.used_ns - before.used_ns) / 1e9 / seconds, waited)


def wanted(use: CpuUse | None, vcpus: int, before: float | None) -> float:
    """Return the demand in CPUs: at once when it rises, bit by bit when it falls.

    `before` is what was returned last time; a guest that is not known yet is taken for busy.
    """
    if use is None:
        return float(vcpus)
    return max(min(float(vcpus), _now(use, vcpus)), (before or 0.0) * _DECAY)


def _now(use: CpuUse, vcpus: int) -> float:
    if use.waited is not None:
        return use.used + use.waited
    return float(vcpus) if use.used >= _BUSY else use.used
