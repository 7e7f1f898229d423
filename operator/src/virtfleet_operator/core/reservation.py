"""What of a node's CPUs may be reserved for a machine that is bound to it already.

The sum of what a node keeps for machines never exceeds what it has. A machine is never moved for a reservation: one
that has grown too large is refused, and the machine goes on with what was kept for it before.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from virtfleet_api.quantity import Frequency
from virtfleet_operator.core.effective import Sizing


@dataclass(frozen=True, slots=True)
class CpuRoom:
    """What a node can reserve, seen by one of its machines. All in hertz."""

    node: str
    cpu_hz: int
    """Nominal frequency of one CPU."""
    capacity_hz: int
    others_hz: int
    """Kept for other machines."""
    held_hz: int
    """Kept for this one."""


def reservation_problem(sizing: Sizing, room: CpuRoom) -> str:
    """Return why the node cannot keep what the machine asks for, as a sentence; empty when it can."""
    asked, most = sizing.scheduling.reservation_hz, sizing.vcpus * room.cpu_hz
    if asked > most:
        have = f"1 vCPU has {_say(most)}" if sizing.vcpus == 1 else f"{sizing.vcpus} vCPUs have {_say(most)}"
        return f"spec.cpu.reservation: '{_say(asked)}' cannot be used, as {have} on node {room.node}: {_remedy(most)}"
    left = max(room.capacity_hz - room.others_hz, room.held_hz)
    if asked > left:
        return (
            f"spec.cpu.reservation: '{_say(asked)}' is more than the {_say(left)} that node {room.node} can keep "
            f"beside its other machines: {_remedy(left)}"
        )
    return ""


def kept_reservation(sizing: Sizing, room: CpuRoom) -> int:
    """Return what the node shall keep: what is asked for, or what it keeps already where that is too much."""
    asked = sizing.scheduling.reservation_hz
    return min(asked, room.held_hz) if reservation_problem(sizing, room) else asked


def reservation_problems(sizing: Sizing, room: CpuRoom | None) -> Iterator[str]:
    """Yield what is wrong with the reservation of a machine, unless nothing is known of its node."""
    if room is not None and sizing.scheduling.reservation_hz and (problem := reservation_problem(sizing, room)):
        yield problem


def _remedy(most: int) -> str:
    return f'write at most "{_say(most)}"' if most > 0 else "leave it out"


def _say(hertz: int) -> str:
    return str(Frequency(hertz)) if hertz > 0 else "0Hz"
