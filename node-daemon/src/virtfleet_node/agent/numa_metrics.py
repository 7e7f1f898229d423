"""The host's NUMA cells, for Prometheus."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from virtfleet_api.report import NumaCell


class NumaMetrics(Collector):
    """Load and free memory of cells and the moves between them, as last seen."""

    def __init__(
        self, registry: CollectorRegistry, cells: Callable[[], Iterable[NumaCell]], moves: Callable[[], int]
    ) -> None:
        self._cells = cells
        self._moves = moves
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the figures as last seen."""
        load = GaugeMetricFamily("virtfleet_node_numa_load", "Share of the cell's CPUs in use.", labels=("cell",))
        free = GaugeMetricFamily("virtfleet_node_numa_free_bytes", "Free memory of the cell.", labels=("cell",))
        pages = GaugeMetricFamily(
            "virtfleet_node_numa_free_hugepages", "Free huge pages of the cell.", labels=("cell", "page_bytes")
        )
        for cell in self._cells():
            load.add_metric((str(cell.cell),), cell.load_percent / 100)
            free.add_metric((str(cell.cell),), cell.free_bytes)
            for size in cell.hugepages:
                pages.add_metric((str(cell.cell), str(size.page_bytes)), size.free)
        moves = CounterMetricFamily("virtfleet_node_numa_moves", "Machines moved to another cell.")
        moves.add_metric((), self._moves())
        yield from (load, free, pages, moves)
