"""What the server counts."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge


class ApiMetrics:
    """Counters of the server, on a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "virtfleet_node_requests_total", "Requests answered.", ("method", "status"), registry=registry
        )
        self._watchers = Gauge("virtfleet_node_watchers", "Watch streams that are open.", registry=registry)

    def count(self, method: str, status: int) -> None:
        """Count a request."""
        # An operator chooses the method; anything else than the known ones is one value.
        known = method if method in {"GET", "PUT", "DELETE"} else "other"
        self._requests.labels(known, str(status)).inc()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a stream while it is open."""
        self._watchers.inc()
        try:
            yield
        finally:
            self._watchers.dec()
