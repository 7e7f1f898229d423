"""What passes through guests' network cards, for Prometheus."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from virtfleet_node.core.traffic import CardFigure

_COUNTERS: Final[Mapping[str, tuple[str, Callable[[CardFigure], float]]]] = {
    "received_bytes": ("Bytes that came to the guest.", lambda figure: figure.traffic.received_bytes),
    "received_packets": ("Packets that came to the guest.", lambda figure: figure.traffic.received_packets),
    "received_drops": (
        "Packets to the guest that its card dropped, without those that its limit held back.",
        lambda figure: figure.traffic.received_drops,
    ),
    "sent_bytes": ("Bytes that came from the guest.", lambda figure: figure.traffic.sent_bytes),
    "sent_packets": ("Packets that came from the guest.", lambda figure: figure.traffic.sent_packets),
    "sent_drops": ("Packets of the guest that were dropped at its card.", lambda figure: figure.traffic.sent_drops),
}


class NetworkMetrics(Collector):
    """Counters of cards since they were plugged in, read when they are asked for."""

    def __init__(self, registry: CollectorRegistry, cards: Callable[[], Iterable[CardFigure]]) -> None:
        self._cards = cards
        registry.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return the figures as last seen."""
        cards = tuple(self._cards())
        for word, (text, read) in _COUNTERS.items():
            names = ("namespace", "machine", "interface")
            family = CounterMetricFamily(f"virtfleet_node_interface_{word}", text, labels=names)
            for figure in cards:
                family.add_metric((figure.namespace, figure.machine, figure.interface), read(figure))
            yield family
