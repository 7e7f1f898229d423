"""What the operator counts, for Prometheus. Names are API: dashboards and alerts are built on them."""

from collections.abc import Hashable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
_START_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)  # a linked clone takes seconds, a full one minutes


class Metrics:
    """Every metric of the operator."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.reconciles = Counter(
            "virtfleet_reconciles", "Looks at an object, by kind and result.", ("kind", "result"), registry=registry
        )
        self.queue_depth = Gauge("virtfleet_queue_depth", "Keys that wait for a worker.", registry=registry)
        self.queue_wait = Histogram(
            "virtfleet_queue_wait_seconds", "From wish to look.", buckets=_SECONDS, registry=registry
        )
        self.reconcile_time = Histogram(
            "virtfleet_reconcile_seconds", "One look.", ("kind",), buckets=_SECONDS, registry=registry
        )
        self.writes = Counter(
            "virtfleet_writes", "Writes to Kubernetes, by kind and part.", ("kind", "part"), registry=registry
        )
        self.streams = Gauge("virtfleet_nodes", "Nodes of the fleet, by contact.", ("contact",), registry=registry)
        self.machines = Gauge("virtfleet_machines", "Machines, by printable status.", ("status",), registry=registry)
        self.start_time = Histogram(
            "virtfleet_machine_start_seconds",
            "From a machine's creation to its status Running.",
            buckets=_START_SECONDS,
            registry=registry,
        )
        self.leader_epoch = Gauge(
            "virtfleet_leader_epoch", "Epoch this process leads in, 0 if none.", registry=registry
        )

    def depth(self, waiting: int) -> None:
        """Keys that wait for a worker."""
        self.queue_depth.set(waiting)

    def done(self, key: Hashable, result: str, waited_seconds: float, worked_seconds: float) -> None:
        """A key has been looked at."""
        kind = str(getattr(key, "kind", key))
        self.reconciles.labels(kind, result).inc()
        self.queue_wait.observe(waited_seconds)
        self.reconcile_time.labels(kind).observe(worked_seconds)
