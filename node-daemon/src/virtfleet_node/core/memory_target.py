"""What balloon, virtio-mem and DIMMs are to be, for a guest to have the memory that it shall have.

Below what the guest was started with, the balloon takes the rest back. Above it, virtio-mem gives what is missing; a
guest without a driver for it is given DIMMs. A guest never has a balloon and plugged memory wanted at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from virtfleet_node.core.compute import AttachedMemory, Dimm
from virtfleet_node.core.desired.memory import SECTION_BYTES


@dataclass(frozen=True)
class MemoryTarget:
    """What the devices are to be. Sizes are in bytes."""

    balloon_bytes: int = 0
    """What the balloon shall have taken back."""
    requested_bytes: int = 0
    """What the guest shall have of the virtio-mem device."""
    detach: tuple[str, ...] = ()
    """DIMMs to be taken back, by alias."""
    attach_bytes: int = 0
    """Size of a DIMM to be added; 0 for none."""


def memory_target(wanted_bytes: int, seen: AttachedMemory, *, refused: bool) -> MemoryTarget:
    """Return what the devices are to be; `refused` says that the guest takes nothing of the virtio-mem device.

    What is wanted must not be more than the ceiling. As long as a guest holds DIMMs that it shall give back, it gets
    nothing from the virtio-mem device in their place: it would have more than it shall have.
    """
    missing = max(0, wanted_bytes - seen.boot_bytes - seen.dimm_bytes)
    attach = _new_dimm(missing, seen) if refused else 0
    return MemoryTarget(
        balloon_bytes=max(0, seen.boot_bytes - wanted_bytes),
        requested_bytes=_requested(missing - attach, seen),
        detach=_superfluous(seen.dimms, max(0, wanted_bytes - seen.boot_bytes)),
        attach_bytes=attach,
    )


def takes_nothing(seen: AttachedMemory) -> bool:
    """Tell whether a guest has been asked to take memory and has none of it: it may have no driver."""
    return seen.device is not None and seen.device.requested_bytes > 0 and seen.device.current_bytes == 0


def _requested(missing_bytes: int, seen: AttachedMemory) -> int:
    if seen.device is None:
        return 0
    step = seen.device.block_bytes
    return min(-(-missing_bytes // step) * step, seen.device.size_bytes)


def _new_dimm(missing_bytes: int, seen: AttachedMemory) -> int:
    """Return the size of the DIMM that comes nearest to what is missing without giving more."""
    step = max(SECTION_BYTES, seen.device.block_bytes if seen.device else 0)
    size = min(missing_bytes, seen.dimm_room_bytes) // step * step
    return size if seen.free_slots else 0


def _superfluous(dimms: Iterable[Dimm], growth_bytes: int) -> tuple[str, ...]:
    """Return the DIMMs that do not fit into the growth: the largest are kept first, since they are the most of it."""
    left, doomed = growth_bytes, []
    for dimm in sorted(dimms, key=lambda dimm: (-dimm.size_bytes, dimm.alias)):
        if dimm.size_bytes <= left:
            left -= dimm.size_bytes
        else:
            doomed.append(dimm.alias)
    return tuple(doomed)
