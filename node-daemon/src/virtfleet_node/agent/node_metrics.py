"""The node itself, for Prometheus: what it has, and whether what it stands on is there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from virtfleet_api.report import NetworkReport


@dataclass(frozen=True)
class NodeFacts:
    """What stays while the daemon runs."""

    name: str = ""
    libvirt_version: str = ""
    qemu_version: str = ""
    hypervisor: str = ""
    cpus: int = 0
    cpu_frequency_hz: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class NodeState:
    """What changes; may be called by any thread."""

    libvirt_connected: Callable[[], bool] = bool
    certificate_expires_at: Callable[[], datetime | None] = lambda: None
    network: Callable[[], NetworkReport | None] = lambda: None
    has_southbound: Callable[[], bool] = bool
    """Whether the operator has given the node access to OVN's southbound database."""


class NodeMetrics(Collector):
    """Gauges of the node, read when they are asked for."""

    def __init__(self, registry: CollectorRegistry, facts: NodeFacts, state: NodeState) -> None:
        self._facts = facts
        self._state = state
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return what holds now; what a node does not have, such as OVN, has no value."""
        facts, state = self._facts, self._state
        versions = {
            "node": facts.name,
            "daemon_version": version("virtfleet"),
            "libvirt_version": facts.libvirt_version,
            "qemu_version": facts.qemu_version,
            "hypervisor": facts.hypervisor,
        }
        info = GaugeMetricFamily("virtfleet_node_info", "Always 1, with the node's software.", labels=tuple(versions))
        info.add_metric(tuple(versions.values()), 1)
        yield info
        yield _gauge("cpus", "CPUs of the host.", facts.cpus)
        yield _gauge(
            "cpu_frequency_hertz", "Nominal frequency of a CPU, 0 when it is not known.", facts.cpu_frequency_hz
        )
        yield _gauge("memory_bytes", "Memory of the host.", facts.memory_bytes)
        yield _gauge("libvirt_up", "1 while libvirtd answers.", float(state.libvirt_connected()))
        expires_at = state.certificate_expires_at()
        yield _gauge(
            "certificate_expiration_timestamp_seconds",
            "When the daemon's certificate ends, in seconds since 1970.",
            expires_at.timestamp() if expires_at else None,
        )
        yield from self._network()

    def _network(self) -> Iterable[GaugeMetricFamily]:
        report = self._state.network()
        known = report is not None and self._state.has_southbound()
        yield _gauge(
            "ovn_connected",
            "1 while ovn-controller is connected to the southbound database; absent without a network engine.",
            float(report.connected) if report is not None and known else None,
        )
        uplinks = GaugeMetricFamily(
            "virtfleet_node_uplink_up", "1 while the physical network is connected.", labels=("interface",)
        )
        for uplink in report.uplinks if report is not None else ():
            uplinks.add_metric((uplink.interface,), float(not uplink.problem))
        yield uplinks


def _gauge(word: str, text: str, value: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"virtfleet_node_{word}", text, labels=())
    if value is not None:
        family.add_metric((), value)
    return family
