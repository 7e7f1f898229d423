"""Volumes of Kubernetes': what is seen of them on the node, and how large the file of one is made. Pure."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from virtfleet_api.machine import VolumeMode, VolumeSource

MIB: Final = 1 << 20

_KEY_LENGTH: Final = 8


@dataclass(frozen=True)
class SeenVolume:
    """A volume as it is on the node."""

    path: Path | None = None
    """Its device, or the file in it; None as long as the kubelet has not mounted it."""
    is_made: bool = False
    """The device or the file is there, and QEMU reaches it."""
    problem: str = ""
    """Why the file cannot be used, as a sentence."""

    @property
    def is_usable(self) -> bool:
        """Tell whether a guest can be given the volume, perhaps once its file is made."""
        return self.path is not None and not self.problem


def claim_key(source: VolumeSource) -> str:
    """Return what tells claims apart, in letters that libvirt takes in the name of a device."""
    return sha256(source.claim.encode()).hexdigest()[:_KEY_LENGTH]


def say_missing(source: VolumeSource, seen: SeenVolume) -> str:
    """Say why a volume cannot be used."""
    return seen.problem or f"Waiting for the volume of the claim {source.claim} to be mounted on this node."


def file_size(wanted_bytes: int | None, free_bytes: int) -> int:
    """Return how large the file of a volume is made: as wanted, if that fits into what is free without the 5.5 %.

    The rest is for the file system's own records of what a guest writes.
    """
    fits = free_bytes * 945 // 1000 // MIB * MIB
    return min(wanted_bytes or fits, fits)


def is_block(source: VolumeSource) -> bool:
    """Tell whether the volume is a device."""
    return source.mode is VolumeMode.BLOCK
