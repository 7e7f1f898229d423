"""What guests read from their disks and write to them, for Prometheus."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from virtfleet_node.core.disk_io import DiskIo, DiskIoFigure

_NS: Final = 1e9
_COUNTERS: Final[Mapping[str, tuple[str, Callable[[DiskIo], float]]]] = {
    "read_bytes": ("Bytes that the guest has read from the disk since its start.", lambda io: io.read_bytes),
    "reads": ("Reads of the guest that have ended.", lambda io: io.reads),
    "read_seconds": ("Time that the guest's reads took, of all together.", lambda io: io.read_ns / _NS),
    "written_bytes": ("Bytes that the guest has written to the disk since its start.", lambda io: io.written_bytes),
    "writes": ("Writes of the guest that have ended.", lambda io: io.writes),
    "write_seconds": ("Time that the guest's writes took, of all together.", lambda io: io.write_ns / _NS),
}


class DiskIoMetrics(Collector):
    """Counters of disks since their guests' start, read when they are asked for."""

    def __init__(self, registry: CollectorRegistry, disks: Callable[[], Iterable[DiskIoFigure]]) -> None:
        self._disks = disks
        registry.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return the figures as last seen."""
        figures = tuple(self._disks())
        for word, (text, read) in _COUNTERS.items():
            names = ("namespace", "machine", "disk")
            family = CounterMetricFamily(f"virtfleet_node_disk_{word}", text, labels=names)
            for figure in figures:
                family.add_metric((figure.namespace, figure.machine, figure.disk), read(figure.io))
            yield family
