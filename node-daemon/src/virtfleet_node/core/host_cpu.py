"""The host's CPUs as machines share them: how fast they are, and how their control groups count weights."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class WeightScale:
    """The weights that a control group of CPUs takes, and how many of them one share is."""

    least: int
    most: int
    per_share: int
    """So that a machine of one vCPU and default shares is far from both ends."""


CGROUP_V1: Final = WeightScale(2, 262_144, 16)
"""cpu.shares: https://docs.kernel.org/scheduler/sched-design-CFS.html; MIN_SHARES and MAX_SHARES in kernel/sched."""

CGROUP_V2: Final = WeightScale(1, 10_000, 1)
"""cpu.weight: https://docs.kernel.org/admin-guide/cgroup-v2.html; libvirt writes shares there as they are."""


@dataclass(frozen=True)
class HostCpu:
    """What a frequency means on this host."""

    frequency_hz: int = 0
    """Nominal, of one CPU; 0 when it is not known, and nothing is limited."""
    cpus: int = 1
    scale: WeightScale | None = CGROUP_V1
    """None where libvirt has no control group of CPUs: nothing is shared out or limited."""
