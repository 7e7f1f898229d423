"""A process that adds pools, uses one, empties it and takes them away, to be killed at any moment.

python pools_victim.py FOLDER MACHINE_UID [ROUNDS]
"""

import asyncio
import itertools
import sys
from pathlib import Path

from virtfleet_api.machine import BlankSource, MachineDisk
from virtfleet_api.pool import Pool, PoolSet
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.wanted_pools import WantedPools


async def main() -> None:
    root, uid = Path(sys.argv[1]), sys.argv[2]
    rounds = range(int(sys.argv[3])) if sys.argv[3:] else itertools.count()
    pools = Pools({"default": root / "pools/default"})
    pools.prepare()
    wanted, disks = WantedPools(pools, root / "pools.json", (root / "pools",)), DiskStore(pools)
    wanted.start()
    sys.stdout.write("started\n")
    sys.stdout.flush()
    both = PoolSet(items=tuple(Pool(name=name, path=str(root / "pools" / name)) for name in ("fast", "slow")))
    for _ in rounds:
        wanted.put(both)
        disk = MachineDisk(name="root", pool="fast", source=BlankSource(), size_bytes=1 << 20)
        await disks.prepare_disk(uid, disk, None)
        wanted.put(PoolSet())
        disks.remove_disk(uid, "fast", "root")
        wanted.tidy()


asyncio.run(main())
