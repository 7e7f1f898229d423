"""From a VMNode to the pools that its node shall have."""

from virtfleet_api.pool import Pool, PoolSet
from virtfleet_api.vm_node import VMNode


def compile_pools(node: VMNode) -> PoolSet:
    """Return the pools of a node beside those of its configuration file."""
    return PoolSet(
        items=tuple(
            Pool(name=p.name, type=p.type, path=p.path, overcommit=p.overcommit, watermark=p.watermark)
            for p in node.spec.pools
        )
    )
