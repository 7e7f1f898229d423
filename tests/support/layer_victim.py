"""A process that folds the layers of a machine that is off, to be killed at any moment.

python layer_victim.py POOL MACHINE_UID BYTES_PER_SECOND
"""

import asyncio
import sys
from pathlib import Path

from virtfleet_node.core.plan_merge import MergeFiles, RemoveLayer, next_step
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.pools import Pools


async def fold(disks: DiskStore, uid: str, rate: int) -> int:
    """Take one step after the other, as the agent does for a machine that is off; return how many there were."""
    steps = 0
    while (seen := disks.merges.look()) is not None and (step := next_step(uid, seen)) is not None:
        steps += 1
        match step:
            case RemoveLayer(layer):
                disks.merges.remove(layer)
            case MergeFiles(lower, upper):
                await disks.merges.merge(lower.path, upper.path, rate, lambda _: None)
                disks.merges.take_place(lower.path, upper.path)
            case _:
                raise AssertionError(step)
    return steps


async def main() -> None:
    root, uid, rate = sys.argv[1:]
    pools = Pools({"default": Path(root)})
    pools.prepare()
    sys.stdout.write("started\n")
    sys.stdout.flush()
    await fold(DiskStore(pools), uid, int(rate))


if __name__ == "__main__":
    asyncio.run(main())
