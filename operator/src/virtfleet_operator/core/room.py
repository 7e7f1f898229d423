"""What a node has for one machine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """What a node may promise, less what it has promised to all other machines; negative when that is too much."""

    node_name: str
    vcpus: int
    memory_bytes: int
    reserved_hz: int
    cpu_hz: int = 0
    """Nominal frequency of one CPU; 0 when it is not known."""
