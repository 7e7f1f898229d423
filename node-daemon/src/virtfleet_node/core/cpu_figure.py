"""What a machine has had of the host's CPUs, for whoever counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CpuFigure:
    """The CPU of a machine."""

    namespace: str
    machine: str
    used_seconds: float
    """Since the start of its guest, by all of QEMU."""
    entitled_hz: float
    """What it would get now if it wanted as much as it is believed to want."""
    waited_seconds: float | None = None
    """How long its vCPUs have waited for a CPU since its start, of all together; None where it is not counted."""
