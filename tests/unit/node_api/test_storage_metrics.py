"""Figures of pools and disks, as Prometheus reads them."""

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from virtfleet_api.image import ImageFormat
from virtfleet_api.report import PoolReport
from virtfleet_node.agent.storage_metrics import StorageMetrics
from virtfleet_node.agent.storage_watch import DiskFigure
from virtfleet_node.core.stored import StoredDisk

POOL = PoolReport(name="default", capacity_bytes=100, free_bytes=30, committed_bytes=250, nearly_full=True)
DISK = StoredDisk("default", "root", Path("/p"), ImageFormat.QCOW2, 200, allocated_bytes=50)


def test_pools_and_disks_are_told_exactly() -> None:
    registry = CollectorRegistry()
    figures = [DiskFigure("shop", "web", DISK)]
    StorageMetrics(registry, lambda: [POOL], lambda: figures)
    pool = {"pool": "default"}
    disk = {"namespace": "shop", "machine": "web", "disk": "root", "pool": "default"}
    found = {
        name: registry.get_sample_value(f"virtfleet_node_{name}", disk if name.startswith("disk") else pool)
        for name in (
            "pool_capacity_bytes",
            "pool_free_bytes",
            "pool_committed_bytes",
            "pool_nearly_full",
            "disk_capacity_bytes",
            "disk_allocated_bytes",
        )
    }
    assert list(found.values()) == [100, 30, 250, 1, 200, 50]
    figures.clear()
    assert b"virtfleet_node_disk_allocated_bytes{" not in generate_latest(registry), "a disk that is gone is not told"
