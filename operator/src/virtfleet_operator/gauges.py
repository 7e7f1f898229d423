"""What is cheaper to count when somebody asks than at each change: how many objects there are, and how they stand."""

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import Gauge

from virtfleet_api.vm_node import NodeResources, VMNodeStatus
from virtfleet_operator.fleet.state import Contact, NodeState
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.metrics import Metrics
from virtfleet_operator.reconcile.catalog import IMAGE, MACHINE, NODE, RESTORE, SNAPSHOT


def count_nodes(metrics: Metrics, states: Iterable[NodeState]) -> None:
    """Set how nodes are in contact."""
    contacts = {state.name: state.contact for state in states}
    _set(metrics.streams, _counted((contact.name.lower(),) for contact in contacts.values()))
    _set(
        metrics.vmnode_up,
        {
            (name,): float(contact is Contact.HEARD)
            for name, contact in contacts.items()
            if contact is not Contact.CONNECTING  # nobody knows yet
        },
    )


def count_objects(metrics: Metrics, cache: Cache) -> None:
    """Set what the cached objects say, a standby's being none."""
    words = ((str(stored.status.printable_status or "Pending"),) for stored in cache.all(MACHINE))
    _set(metrics.machines, _counted(words))
    for gauge, kind in ((metrics.snapshots, SNAPSHOT), (metrics.restores, RESTORE), (metrics.images, IMAGE)):
        phases = ((stored.key.namespace, str(stored.status.phase or "Pending")) for stored in cache.all(kind))
        _set(gauge, _counted(phases))
    _count_nodes(metrics, {stored.key.name: stored.status for stored in cache.all(NODE)})


def _count_nodes(metrics: Metrics, nodes: dict[str, VMNodeStatus]) -> None:
    _set(metrics.vmnode_machines, {(name,): status.machines for name, status in nodes.items()})
    _set(
        metrics.vmnode_condition,
        {(name, found.type, found.status.value): 1 for name, status in nodes.items() for found in status.conditions},
    )
    offered = {name: status.allocatable for name, status in nodes.items() if status.allocatable}
    promised = {name: status.allocated for name, status in nodes.items() if status.allocated}
    _set_resources((metrics.allocatable_vcpus, metrics.allocatable_memory, metrics.reservable_cpu), offered)
    _set_resources((metrics.allocated_vcpus, metrics.allocated_memory, metrics.reserved_cpu), promised)


def _set_resources(gauges: tuple[Gauge, Gauge, Gauge], found: dict[str, NodeResources]) -> None:
    vcpus, memory, cpu = gauges
    _set(vcpus, {(name,): resources.cpus for name, resources in found.items()})
    _set(memory, {(name,): int(resources.memory or 0) for name, resources in found.items()})
    _set(cpu, {(name,): int(resources.reserved or 0) for name, resources in found.items()})


def _counted(labels: Iterable[tuple[str, ...]]) -> Mapping[tuple[str, ...], int]:
    return Counter(labels)


def _set(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Set a gauge by its labels' values; what is not among them is told no more."""
    gauge.clear()
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
