"""Rules about nodes."""

from collections.abc import Iterator, Sequence

from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.validate.image import listed_users


def node_problems(node: VMNode) -> tuple[str, ...]:
    """Check a VMNode."""
    return tuple(_problems(node))


def node_deletion_problems(node: ObjectMeta, machines: Sequence[str]) -> tuple[str, ...]:
    """Say which machines keep a node from being deleted."""
    if not machines:
        return ()
    return (f"VMNode {node.name} runs {listed_users(machines)}: delete or move these machines first",)


def _problems(node: VMNode) -> Iterator[str]:
    reserved = node.spec.system_reserved.memory
    capacity = node.status.capacity.memory if node.status.capacity else None
    if reserved is not None and capacity is not None and reserved >= capacity:
        yield (
            f"spec.systemReserved.memory: '{reserved}' leaves machines nothing of the node's {capacity}: "
            'write less, such as "1Gi"'
        )
