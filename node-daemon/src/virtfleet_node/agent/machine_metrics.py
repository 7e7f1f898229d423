"""How machines stand and what they have, for Prometheus. It costs nothing: it is what their reports say."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from virtfleet_api.report import MachineReport

_LABELS: Final = ("namespace", "machine")
_GAUGES: Final[Mapping[str, tuple[str, Callable[[MachineReport], float | None]]]] = {
    "restarts": ("Starts after a crash since the machine last ran steadily.", lambda report: report.restarts),
    "start_time_seconds": (
        "When the running guest was started, in seconds since 1970.",
        lambda report: report.started_at.timestamp() if report.started_at else None,
    ),
    "vcpus": ("vCPUs that the guest has, or would be started with.", lambda report: report.vcpus),
    "memory_bytes": (
        "Memory that the guest has, without what its balloon has taken back, or would be started with.",
        lambda report: report.memory_bytes,
    ),
    "balloon_bytes": ("What the balloon has taken back of the guest's memory.", lambda report: report.balloon_bytes),
    "cpu_reserved_hertz": (
        "What is kept of the node's CPUs for the machine.",
        lambda report: report.reservation_hz,
    ),
    "agent_connected": ("1 while the guest agent answers.", lambda report: report.agent_connected),
    "restart_required": (
        "1 while a change of the machine waits for its next start.",
        lambda report: bool(report.restart_required),
    ),
}


class MachineMetrics(Collector):
    """Gauges of machines, read when they are asked for."""

    def __init__(self, registry: CollectorRegistry, machines: Callable[[], Iterable[MachineReport]]) -> None:
        self._machines = machines
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return what was last reported."""
        reports = tuple(self._machines())
        phase = GaugeMetricFamily(
            "virtfleet_node_machine_phase",
            "1 for the phase that the machine is in, with the reason that its node gives, which may be empty.",
            labels=(*_LABELS, "phase", "reason"),
        )
        for report in reports:
            phase.add_metric((report.namespace, report.name, report.phase.value, report.reason), 1)
        yield phase
        for word, (text, read) in _GAUGES.items():
            family = GaugeMetricFamily(f"virtfleet_node_machine_{word}", text, labels=_LABELS)
            for report in reports:
                if (value := read(report)) is not None:
                    family.add_metric((report.namespace, report.name), value)
            yield family
