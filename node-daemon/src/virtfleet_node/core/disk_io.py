"""What guests have read from their disks and written to them, for whoever counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DiskIo:
    """Counters of a disk since its guest was started."""

    read_bytes: int = 0
    reads: int = 0
    read_ns: int = 0
    """Time that reads took, of all together."""
    written_bytes: int = 0
    writes: int = 0
    write_ns: int = 0


@dataclass(frozen=True)
class DiskIoFigure:
    """The counters of a disk of a machine."""

    namespace: str
    machine: str
    disk: str
    io: DiskIo
