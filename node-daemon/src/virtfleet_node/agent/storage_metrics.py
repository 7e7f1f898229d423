"""What pools and disks take, for Prometheus: exact figures, where status tells them in steps."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from virtfleet_api.report import PoolReport
from virtfleet_node.agent.storage_watch import DiskFigure

_POOL: Final[Mapping[str, tuple[str, Callable[[PoolReport], float]]]] = {
    "capacity": ("Size of the pool's file system.", lambda pool: pool.capacity_bytes),
    "free": ("Free space of the pool's file system.", lambda pool: pool.free_bytes),
    "committed": ("Sizes that guests see of all disks in the pool.", lambda pool: pool.committed_bytes),
}
_DISK: Final[Mapping[str, tuple[str, Callable[[DiskFigure], float]]]] = {
    "capacity": ("Size that the guest sees.", lambda figure: figure.disk.capacity_bytes),
    "allocated": ("What the disk's file takes in its pool.", lambda figure: figure.disk.allocated_bytes),
}


class StorageMetrics(Collector):
    """Gauges of pools and disks, read when they are asked for."""

    def __init__(
        self,
        registry: CollectorRegistry,
        pools: Callable[[], Iterable[PoolReport]],
        disks: Callable[[], Iterable[DiskFigure]],
    ) -> None:
        self._pools = pools
        self._disks = disks
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the figures as last seen."""
        pools, disks = tuple(self._pools()), tuple(self._disks())
        for word, (text, read) in _POOL.items():
            family = GaugeMetricFamily(f"virtfleet_node_pool_{word}_bytes", text, labels=("pool",))
            for pool in pools:
                family.add_metric((pool.name,), read(pool))
            yield family
        full = GaugeMetricFamily("virtfleet_node_pool_nearly_full", "1 above the watermark.", labels=("pool",))
        for pool in pools:
            full.add_metric((pool.name,), float(pool.nearly_full))
        problem = GaugeMetricFamily(
            "virtfleet_node_pool_problem", "1 while the pool is not as it is wanted.", labels=("pool",)
        )
        for pool in pools:
            problem.add_metric((pool.name,), float(bool(pool.problem)))
        yield full
        yield problem
        for word, (text, read_disk) in _DISK.items():
            names = ("namespace", "machine", "disk", "pool")
            family = GaugeMetricFamily(f"virtfleet_node_disk_{word}_bytes", text, labels=names)
            for figure in disks:
                family.add_metric(
                    (figure.namespace, figure.machine, figure.disk.name, figure.disk.pool), read_disk(figure)
                )
            yield family
