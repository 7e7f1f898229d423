"""Two nodes with one shared pool: an image is fetched once, and neither sweeps away what the other works on."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from virtfleet_api.image import Download, Image
from virtfleet_api.machine import ImageDiskSource, MachineDisk
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.storage.claims import try_claim
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.pools import Pools
from web import serve

IMAGE, MACHINE = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "ab")


@contextlib.asynccontextmanager
async def node(path: Path) -> AsyncIterator[tuple[ImageStore, DiskStore]]:
    pools = Pools({"nfs": path})
    pools.prepare()
    disks = DiskStore(pools)
    images = ImageStore(pools, disks)
    await images.start()
    try:
        yield images, disks
    finally:
        await images.stop()


async def until_ready(images: ImageStore) -> None:
    async with asyncio.timeout(20):
        while images.files(IMAGE) is None:
            await asyncio.sleep(0.02)


async def test_two_nodes_fetch_an_image_once_and_remove_it_once(tmp_path: Path) -> None:
    web, pool = tmp_path / "web", tmp_path / "pool"
    web.mkdir()
    (web / "disk.raw").write_bytes(os.urandom(8 << 20))
    async with serve(web) as server, node(pool) as (one, disks), node(pool) as (two, _):
        url = f"{server.url}/files/disk.raw"
        image = Image(uid=IMAGE, namespace="n", name="i", pool="nfs", main=Download(url=url))
        await asyncio.gather(one.put(image), two.put(image))
        await asyncio.gather(until_ready(one), until_ready(two))
        assert server.asked["/files/disk.raw"] == [None]
        assert one.files(IMAGE) == two.files(IMAGE)
        async with node(pool) as (late, _):
            assert late.files(IMAGE) == one.files(IMAGE), "a node that comes later has it at once"
        wanted = MachineDisk(name="root", pool="nfs", source=ImageDiskSource(image_uid=IMAGE))
        await disks.prepare_disk(MACHINE, wanted, one.files(IMAGE))
        gone = image.model_copy(update={"present": False})
        refusals = await asyncio.gather(one.put(gone), two.put(gone), return_exceptions=True)
        assert [type(refusal).__name__ for refusal in refusals] == ["ConflictError", "ConflictError"]
        disks.remove_disk(MACHINE, "nfs", "root")
        await asyncio.gather(one.put(gone), two.put(gone))
        assert (one.reports(), two.reports()) == ((), ())
    assert list((pool / "images").iterdir()) == []


async def test_a_node_that_starts_leaves_alone_what_another_works_on(tmp_path: Path) -> None:
    folder = tmp_path / "images" / IMAGE
    folder.mkdir(parents=True)
    (folder / "image.json.partial").touch()
    held = try_claim(folder)
    assert held is not None
    async with node(tmp_path):
        assert folder.exists()
    os.close(held)
    async with node(tmp_path):
        assert list(folder.parent.iterdir()) == []


async def test_a_node_waits_for_the_other_and_goes_on_when_that_dies(tmp_path: Path) -> None:
    web, pool = tmp_path / "web", tmp_path / "pool"
    web.mkdir()
    (web / "disk.raw").write_bytes(os.urandom(1 << 20))
    async with serve(web) as server, node(pool) as (images, _):
        image = Image(uid=IMAGE, namespace="n", name="i", pool="nfs", main=Download(url=f"{server.url}/files/disk.raw"))
        folder = pool / "images" / IMAGE
        folder.mkdir()
        (folder / "image.json").write_text(image.model_dump_json())
        held = try_claim(folder)
        assert held is not None
        await images.put(image)
        await asyncio.sleep(0.2)
        (report,) = images.reports()
        assert (report.phase, report.reason) == (ImagePhase.IMPORTING, "ImportedByAnother")
        os.close(held)
        await until_ready(images)
