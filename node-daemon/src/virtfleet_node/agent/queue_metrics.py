"""How the daemon keeps up with its machines, for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)


class QueueMetrics:
    """What the queue of machines tells of its work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reconciles = Counter(
            "virtfleet_node_reconciles", "Looks at a machine, by result: ok or error.", ("result",), registry=registry
        )
        self._time = Histogram(
            "virtfleet_node_reconcile_seconds", "One look at a machine.", buckets=_SECONDS, registry=registry
        )
        self._depth = Gauge("virtfleet_node_queue_depth", "Machines that wait for a worker.", registry=registry)
        for result in ("ok", "error"):
            self._reconciles.labels(result)  # a first error is an increase only of what was 0 before

    def depth(self, waiting: int) -> None:
        """Machines that wait for a worker."""
        self._depth.set(waiting)

    def done(self, *, failed: bool, seconds: float) -> None:
        """A machine has been looked at."""
        self._reconciles.labels("error" if failed else "ok").inc()
        self._time.observe(seconds)
