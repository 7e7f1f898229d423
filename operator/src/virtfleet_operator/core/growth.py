"""Whether a machine may grow where it is: a machine that is bound is never placed again, so its node must have room."""

from collections.abc import Iterator

from virtfleet_api.quantity import Bytes
from virtfleet_operator.core.place import Load
from virtfleet_operator.core.room import Room


def growth_problems(before: Load, after: Load, room: Room) -> tuple[str, ...]:
    """Return why a machine cannot have more vCPUs or memory; what does not grow is never refused."""
    return tuple(_problems(before, after, room))


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
