"""What is counted when Prometheus asks the operator: objects of the cache and nodes of the fleet."""

from typing import Any

from prometheus_client import CollectorRegistry

from virtfleet_operator.fleet.state import Contact, NodeState
from virtfleet_operator.gauges import count_nodes, count_objects
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.metrics import Metrics


class Nobody:
    """Hears of nothing."""

    def machine_changed(self, node: str, uid: str) -> None: ...
    def image_changed(self, node: str, uid: str) -> None: ...
    def snapshot_changed(self, node: str, uid: str) -> None: ...
    def node_changed(self, node: str) -> None: ...
    def everything_changed(self, node: str) -> None: ...


def body(name: str, status: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {}, "status": status}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"virtfleet_{name}", labels)


def test_objects_are_counted_by_how_they_stand_and_forgotten_when_they_go() -> None:
    metrics, cache = Metrics(), Cache({})
    cache.put("VirtualMachine", body("a", {"printableStatus": "Running"}))
    cache.put("VirtualMachine", body("b", {"printableStatus": "Running"}, "lab"))
    cache.put("VirtualMachine", body("c", {}))
    cache.put("VMSnapshot", body("s", {"phase": "Failed"}))
    cache.put("VMImage", body("i", {"phase": "Ready"}, "lab"))
    cache.put("VMRestore", body("r", {}))
    count_objects(metrics, cache)
    found = metrics.registry
    assert value(found, "machines", status="Running") == 2
    assert value(found, "machines", status="Pending") == 1
    assert value(found, "snapshots", namespace="shop", phase="Failed") == 1
    assert value(found, "images", namespace="lab", phase="Ready") == 1
    assert value(found, "restores", namespace="shop", phase="Pending") == 1
    cache.remove(Key("VMSnapshot", "shop", "s"), "shop/s")
    count_objects(metrics, cache)
    assert value(found, "snapshots", namespace="shop", phase="Failed") is None


def test_a_node_tells_what_it_may_promise_what_it_has_promised_and_its_conditions() -> None:
    metrics, cache = Metrics(), Cache({})
    condition = {"type": "Orphans", "status": "True", "reason": "Found", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {
        "allocatable": {"cpus": 8, "memory": "4Gi", "reserved": "4GHz"},
        "allocated": {"cpus": 3, "memory": "1Gi"},
        "machines": 2,
        "conditions": [condition],
    }
    cache.put("VMNode", body("hv-1", status, ""))
    count_objects(metrics, cache)
    words = ("allocatable_vcpus", "allocatable_memory_bytes", "reservable_cpu_hertz")
    assert [value(metrics.registry, f"vmnode_{word}", node="hv-1") for word in words] == [8, 4 << 30, 4e9]
    words = ("allocated_vcpus", "allocated_memory_bytes", "reserved_cpu_hertz", "machines")
    assert [value(metrics.registry, f"vmnode_{word}", node="hv-1") for word in words] == [3, 1 << 30, 0, 2]
    assert value(metrics.registry, "vmnode_condition", node="hv-1", condition="Orphans", status="True") == 1


def test_a_node_that_nobody_has_waited_for_yet_is_neither_up_nor_down() -> None:
    metrics, nobody = Metrics(), Nobody()
    heard, lost, new = (NodeState(name, nobody) for name in ("heard", "lost", "new"))
    heard.contact, lost.contact = Contact.HEARD, Contact.LOST
    count_nodes(metrics, (heard, lost, new))
    assert [value(metrics.registry, "vmnode_up", node=name) for name in ("heard", "lost", "new")] == [1, 0, None]
    assert value(metrics.registry, "nodes", contact="connecting") == 1
    count_nodes(metrics, (heard,))
    assert value(metrics.registry, "vmnode_up", node="lost") is None, "a node that has left is not missed"
