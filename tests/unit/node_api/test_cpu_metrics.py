"""The CPU of machines, from libvirt's counters to what Prometheus reads."""

from prometheus_client import CollectorRegistry

from virtfleet_node.agent.cpu_metrics import CpuMetrics
from virtfleet_node.core.cpu_figure import CpuFigure
from virtfleet_node.core.demand import CpuCounters
from virtfleet_node.hypervisor.cpu import parse_counters


def test_use_and_entitlement_are_told_by_machine() -> None:
    registry = CollectorRegistry()
    CpuMetrics(registry, lambda: [CpuFigure("shop", "web", 12.5, 7e8)])
    labels = {"namespace": "shop", "machine": "web"}
    assert registry.get_sample_value("virtfleet_node_cpu_seconds_total", labels) == 12.5
    assert registry.get_sample_value("virtfleet_node_cpu_entitled_hertz", labels) == 7e8


def test_waiting_is_the_sum_over_vcpus_and_unknown_where_it_is_not_counted() -> None:
    stats = {"cpu.time": 9, "vcpu.current": 2, "vcpu.0.delay": 3, "vcpu.1.delay": 4, "vcpu.0.wait": 0}
    assert parse_counters(stats) == CpuCounters(9, 2, 7)
    assert parse_counters({"cpu.time": 9}) == CpuCounters(9, 1, None)
