"""Whether a machine may grow where it is: a machine that is bound is never placed again, so its node must have room."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from virtfleet_api.quantity import Bytes, Frequency
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.place import Load, load_of
from virtfleet_operator.core.room import Room
from virtfleet_operator.core.verdict import join_problems

_NOT_KNOWN: Final = "spec.cpu.reservation: what the machine's node can keep is not known yet"


def growth_problems(before: Load, after: Load, room: Room) -> tuple[str, ...]:
    """Return why a machine cannot grow; what does not grow is never refused, however full the node is."""
    return tuple(_problems(before, after, room))


def kept_reservation(sizing: Sizing, held_hz: int, room: Room | None) -> tuple[int, str]:
    """Return what its node shall keep for a bound machine, in hertz, and why that is not what it asks for.

    What does not fit is refused as a whole: the machine goes on with what is kept for it already.
    """
    after = load_of(sizing, {})
    if room is None:
        held_hz = min(held_hz, after.reserved_hz)
        return held_hz, "" if held_hz == after.reserved_hz else _NOT_KNOWN
    problems = growth_problems(replace(after, reserved_hz=held_hz), after, room)
    return (min(held_hz, after.reserved_hz), join_problems(problems)) if problems else (after.reserved_hz, "")


def _problems(before: Load, after: Load, room: Room) -> Iterator[str]:
    where = f"more than node {room.node_name} has room for"
    if after.vcpus > max(before.vcpus, room.vcpus):
        most = max(before.vcpus, room.vcpus)
        yield f"spec.cpu: {after.vcpus} vCPUs are {where}: write at most {most}, or move other machines away"
    if after.memory_bytes > (least := max(before.memory_bytes, room.memory_bytes)):
        yield (
            f"spec.memory.guest: '{Bytes(after.memory_bytes)}' is {where}: "
            f'write at most "{Bytes(least >> 20 << 20)}", or move other machines away'
        )
    if after.reserved_hz > (most_hz := after.vcpus * room.cpu_hz) and _asks_more(before, after):
        yield (
            f"spec.cpu.reservation: '{Frequency(after.reserved_hz)}' is more than its {after.vcpus} vCPUs can use on "
            f"node {room.node_name}: {_reserve(most_hz)}"
        )
    elif after.reserved_hz > (least := max(before.reserved_hz, room.reserved_hz)):
        yield (
            f"spec.cpu.reservation: '{Frequency(after.reserved_hz)}' is {where}: "
            f"{_reserve(least)}, or move other machines away"
        )


def _asks_more(before: Load, after: Load) -> bool:
    return after.reserved_hz > before.reserved_hz or after.vcpus < before.vcpus


def _reserve(most_hz: int) -> str:
    return f'write at most "{Frequency(most_hz)}"' if most_hz > 0 else "leave it out"
