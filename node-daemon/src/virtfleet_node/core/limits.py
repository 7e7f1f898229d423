"""Limits of network cards and vCPUs, as libvirt takes them and shows them."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class CardLimit:
    """libvirt's <inbound>; 0 everywhere is no limit."""

    average: int = 0
    """Kilobytes a second."""
    peak: int = 0
    """Kilobytes a second."""
    burst: int = 0
    """KiB."""


NO_LIMIT: Final = CardLimit()

UNLIMITED: Final = -1
"""libvirt's quota without a limit."""

PERIOD: Final = 100_000
"""Microseconds; the kernel's default."""


@dataclass(frozen=True)
class CpuQuota:
    """Microseconds of CPU in each period."""

    period: int = PERIOD
    vcpu: int = UNLIMITED
    """For each vCPU."""
    total: int = UNLIMITED
    """For all of QEMU."""


NO_QUOTA: Final = CpuQuota()
