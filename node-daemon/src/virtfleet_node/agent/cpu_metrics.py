"""What machines have of the host's CPUs, for Prometheus."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from virtfleet_node.core.cpu_figure import CpuFigure


class CpuMetrics(Collector):
    """Use and entitlement of running machines, read when they are asked for."""

    def __init__(self, registry: CollectorRegistry, machines: Callable[[], Iterable[CpuFigure]]) -> None:
        self._machines = machines
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the figures as last measured."""
        names = ("namespace", "machine")
        used = CounterMetricFamily(
            "virtfleet_node_cpu_seconds", "CPU time of the machine's QEMU since its start.", labels=names
        )
        entitled = GaugeMetricFamily(
            "virtfleet_node_cpu_entitled_hertz",
            "What the machine is entitled to of the CPUs that it contends for, as far as it wants it.",
            labels=names,
        )
        waited = CounterMetricFamily(
            "virtfleet_node_cpu_wait_seconds",
            "Time that the machine's vCPUs were ready to run and had to wait for a CPU, of all together.",
            labels=names,
        )
        for figure in self._machines():
            used.add_metric((figure.namespace, figure.machine), figure.used_seconds)
            entitled.add_metric((figure.namespace, figure.machine), figure.entitled_hz)
            if figure.waited_seconds is not None:
                waited.add_metric((figure.namespace, figure.machine), figure.waited_seconds)
        yield used
        yield waited
        yield entitled
