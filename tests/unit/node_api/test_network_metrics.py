"""What passes through cards, from libvirt's figures to what Prometheus reads."""

from prometheus_client import CollectorRegistry

from virtfleet_api.network import LinkState
from virtfleet_node.agent.network_metrics import NetworkMetrics
from virtfleet_node.core.observed import AttachedCard, DomainState, ObservedDomain
from virtfleet_node.core.traffic import CardFigure, Traffic, build_traffic
from virtfleet_node.hypervisor.traffic import parse_stats

STATS = {
    "net.count": 2,
    "net.0.name": "vnet0",
    "net.0.rx.bytes": 1000,
    "net.0.rx.pkts": 10,
    "net.0.rx.errs": 0,
    "net.0.rx.drop": 3,
    "net.0.tx.bytes": 500,
    "net.0.tx.pkts": 5,
    "net.0.tx.errs": 0,
    "net.0.tx.drop": 1,
}
TRAFFIC = Traffic(1000, 10, 3, 500, 5, 1)


def test_counters_are_told_by_card() -> None:
    registry = CollectorRegistry()
    NetworkMetrics(registry, lambda: [CardFigure("shop", "web", "eth0", TRAFFIC)])
    labels = {"namespace": "shop", "machine": "web", "interface": "eth0"}
    words = ("received_bytes", "received_packets", "received_drops", "sent_bytes", "sent_packets", "sent_drops")
    found = [registry.get_sample_value(f"virtfleet_node_interface_{word}_total", labels) for word in words]
    assert found == [1000, 10, 3, 500, 5, 1]


def test_a_card_without_a_device_of_the_node_is_not_counted() -> None:
    assert parse_stats(STATS) == {"vnet0": TRAFFIC}
    assert parse_stats({}) == {}
    cards = (
        AttachedCard("ua-card-eth0", "52:54:00:00:00:01", "eth0", port="p", device="vnet0"),
        AttachedCard("ua-card-eth1", "52:54:00:00:00:02", "eth1", state=LinkState.DOWN),
    )
    on_switch, nat = build_traffic(ObservedDomain(DomainState.RUNNING, cards=cards), parse_stats(STATS))
    assert (on_switch.name, on_switch.received_bytes, on_switch.sent_drops) == ("eth0", 1000, 1)
    assert (nat.name, nat.state, nat.received_bytes) == ("eth1", "down", None)
