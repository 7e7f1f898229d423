"""What the server counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from virtfleet_api.node_api import ProblemReason

_METHODS: Final = frozenset({"GET", "PUT", "DELETE"})
"""The peer chooses the method: whatever else it sends is one value, or each would be a series of its own."""


class ApiMetrics:
    """Counters of the server, on a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "virtfleet_node_requests_total", "Requests answered.", ("method", "status"), registry=registry
        )
        self._refusals = Counter(
            "virtfleet_node_refusals_total", "Requests refused, by the reason given.", ("reason",), registry=registry
        )
        self._watchers = Gauge("virtfleet_node_watchers", "Watch streams that are open.", registry=registry)
        self._viewers = Gauge("virtfleet_node_console_viewers", "Consoles that are being viewed.", registry=registry)
        self._forwards = Gauge("virtfleet_node_forwards", "Connections to TCP ports of guests.", registry=registry)
        self._display_viewers = Gauge(
            "virtfleet_node_display_viewers", "Displays that are being viewed.", registry=registry
        )

    def count(self, method: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(method if method in _METHODS else "other", str(status)).inc()

    def count_refusal(self, reason: ProblemReason) -> None:
        """Count a refusal."""
        self._refusals.labels(reason.value).inc()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watch stream while it is open."""
        with self._watchers.track_inprogress():
            yield

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """Count a viewer of a console while it is there."""
        with self._viewers.track_inprogress():
            yield

    @contextmanager
    def forwarding(self) -> Iterator[None]:
        """Count a connection to a guest while it is open."""
        with self._forwards.track_inprogress():
            yield

    @contextmanager
    def viewing_display(self) -> Iterator[None]:
        """Count a viewer of a display while it is there."""
        with self._display_viewers.track_inprogress():
            yield
