"""The steps of a plan that change the vCPUs and the memory of a running guest, as values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlugVcpus:
    """Give vCPUs to a running guest."""

    count: int
    """Those that it has then."""

    def __str__(self) -> str:
        """Say it in words."""
        return f"plug vCPUs up to {self.count}"


@dataclass(frozen=True)
class UnplugVcpus:
    """Ask a running guest to let go of vCPUs."""

    count: int
    """Those that it has then."""

    def __str__(self) -> str:
        """Say it in words."""
        return f"unplug vCPUs down to {self.count}"


@dataclass(frozen=True)
class SetGuestVcpus:
    """Have the guest agent bring vCPUs online, or turn them off, until so many are online."""

    count: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"have the guest use {self.count} vCPUs"


@dataclass(frozen=True)
class RequestMemory:
    """Ask a running guest to have so much of its virtio-mem device."""

    size_bytes: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"request {self.size_bytes} bytes of virtio-mem"


@dataclass(frozen=True)
class SetBalloon:
    """Ask a running guest's balloon to leave it so much of its memory and DIMMs."""

    level_bytes: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"set balloon to leave {self.level_bytes} bytes"


@dataclass(frozen=True)
class AttachDimm:
    """Give a DIMM to a running guest."""

    size_bytes: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"attach DIMM of {self.size_bytes} bytes"


@dataclass(frozen=True)
class DetachDimm:
    """Ask a running guest to let go of a DIMM."""

    alias: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"detach DIMM {self.alias}"


VcpuAction = PlugVcpus | UnplugVcpus | SetGuestVcpus

MemoryAction = RequestMemory | SetBalloon | AttachDimm | DetachDimm
