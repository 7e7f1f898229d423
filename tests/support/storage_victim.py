"""A process that imports an image and makes and removes disks, to be killed at any moment.

python storage_victim.py POOL URL IMAGE_UID MACHINE_UID [ROUNDS]
"""

import asyncio
import itertools
import sys
from pathlib import Path

from virtfleet_api.image import Download, Image
from virtfleet_api.machine import BlankSource, ImageDiskSource, MachineDisk
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.pools import Pools


async def main() -> None:
    root, url, image_uid, machine_uid = sys.argv[1:5]
    rounds = range(int(sys.argv[5])) if sys.argv[5:] else itertools.count()
    pools = Pools({"default": Path(root)})
    pools.prepare()
    disks = DiskStore(pools)
    images = ImageStore(pools, disks)
    await images.start()
    _say("started")
    wanted = Image(uid=image_uid, namespace="n", name="i", pool="default", main=Download(url=url))
    wished = [MachineDisk(name="blank", pool="default", source=BlankSource(), size_bytes=1 << 20)]
    wished += [
        MachineDisk(name=clone.lower(), pool="default", source=ImageDiskSource(image_uid=image_uid, clone=clone))
        for clone in Clone
    ]
    for _ in rounds:
        await images.put(wanted)
        while (files := images.files(image_uid)) is None:
            await asyncio.sleep(0.005)
        for disk in wished:
            await disks.prepare_disk(machine_uid, disk, files if isinstance(disk.source, ImageDiskSource) else None)
        for disk in wished:
            disks.remove_disk(machine_uid, "default", disk.name)
        await images.put(wanted.model_copy(update={"present": False}))
        _say("round")


def _say(text: str) -> None:
    """Tell the test how far it is, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


asyncio.run(main())
