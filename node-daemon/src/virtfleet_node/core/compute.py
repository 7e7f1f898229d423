"""The vCPUs and the memory of a running guest, as its domain shows them. Read anew each time, never remembered."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryDevice:
    """The virtio-mem device of a running guest. Sizes are in bytes."""

    size_bytes: int
    """Most that it gives."""
    requested_bytes: int = 0
    """What the guest has been asked to have of it."""
    current_bytes: int = 0
    """What the guest has of it."""
    block_bytes: int = 2 << 20
    """Step of the figures."""


@dataclass(frozen=True)
class Dimm:
    """A DIMM that a running guest has been given."""

    alias: str
    """libvirt's name of the device."""
    size_bytes: int


@dataclass(frozen=True)
class AttachedMemory:
    """The memory of a running guest. Sizes are in bytes."""

    boot_bytes: int
    """What it was started with."""
    balloon_bytes: int = 0
    """What of it the balloon has taken back."""
    device: MemoryDevice | None = None
    dimms: tuple[Dimm, ...] = ()
    dimm_room_bytes: int = 0
    """What more DIMMs may add up to."""
    free_slots: int = 0
    """DIMMs that may be added."""

    @property
    def dimm_bytes(self) -> int:
        """Return the size of all DIMMs."""
        return sum(dimm.size_bytes for dimm in self.dimms)

    @property
    def current_bytes(self) -> int:
        """Return what the guest has."""
        plugged = self.device.current_bytes if self.device else 0
        return self.boot_bytes + plugged + self.dimm_bytes - self.balloon_bytes

    @property
    def ceiling_bytes(self) -> int:
        """Return the most that the guest may be given."""
        return self.boot_bytes + (self.device.size_bytes if self.device else 0)


@dataclass(frozen=True)
class AttachedVcpus:
    """The vCPUs of a running guest."""

    plugged: int
    """Those that it has."""
    ceiling: int
    """Those that it may be given."""
    emulated: bool = False
    """QEMU emulates them: then it cannot take any away, and the guest agent turns them off instead."""
