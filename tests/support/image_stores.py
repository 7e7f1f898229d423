"""The images of a node on a folder of the test's, as the daemon has them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from virtfleet_api.image import Download, Image, ImageReport
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.origin import Tls
from virtfleet_node.storage.pools import Pools

UID = "11111111-2222-3333-4444-555555555555"
STALL_SECONDS = 0.5
RESTED = {ImagePhase.READY, ImagePhase.FAILED}


@contextlib.asynccontextmanager
async def running_store(
    root: Path, peer_tls: Callable[[], Tls] = lambda: True
) -> AsyncIterator[tuple[ImageStore, DiskStore]]:
    """Run the stores of one daemon process."""
    pools = Pools({"default": root / "pool"})
    pools.prepare()
    disks = DiskStore(pools)
    images = ImageStore(pools, disks, STALL_SECONDS, peer_tls)
    await images.start()
    try:
        yield images, disks
    finally:
        await images.stop()


def image(url: str | None, sha256: str | None = None, **fields: object) -> Image:
    """Return a document; without a URL it is of an image that is uploaded."""
    main = Download(url=url, sha256=sha256) if url else None
    known = {"uid": UID, "namespace": "default", "name": "base", "pool": "default", "main": main}
    return Image.model_validate({**known, **fields})


async def until(images: ImageStore, holds: Callable[[ImageReport], bool], seconds: float = 20) -> ImageReport:
    """Wait for a report of which something is true."""
    async with asyncio.timeout(seconds):
        while not (found := [r for r in images.reports() if holds(r)]):
            await asyncio.sleep(0.01)
        return found[0]


async def imported(root: Path, wanted: Image) -> ImageReport:
    """Import an image and return how it ended."""
    async with running_store(root) as (images, _):
        await images.put(wanted)
        return await until(images, lambda r: r.phase in RESTED)
