"""Rules about nodes."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_node import NodePool, VMNode
from virtfleet_operator.core.validate.devices import device_rule_problems
from virtfleet_operator.core.validate.image import listed_users
from virtfleet_operator.core.validate.scheduling import taint_problems
from virtfleet_operator.core.verdict import quote


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
    yield from _pool_problems(node.spec.pools)
    yield from taint_problems(node.spec.taints)
    yield from device_rule_problems(node.spec.devices, "spec.devices")


def _pool_problems(pools: Sequence[NodePool]) -> Iterator[str]:
    names: set[str] = set()
    for index, pool in enumerate(pools):
        where = f"spec.pools[{index}]"
        if pool.name in names:
            yield f"{where}.name: {quote(pool.name)} is used twice: write a name that no other pool has"
        names.add(pool.name)
        for other in pools[:index]:
            if _overlap(PurePosixPath(pool.path), PurePosixPath(other.path)):
                yield (
                    f"{where}.path: {quote(pool.path)} and {quote(other.path)} overlap: "
                    "write a directory that no other pool has"
                )
                break


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one == other or one in other.parents or other in one.parents
