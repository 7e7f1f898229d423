"""A node that has an image by an upload and gives copies of it, over TLS as it is."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from identities import Identities
from image_stores import UID, image, running_store, until
from virtfleet_api.image import Peer
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.api.access import build_copy_context
from virtfleet_node.api.copies import CopyServer
from virtfleet_node.storage.images import ImageStore
from virtfleet_operator.enrolment.contexts import load_pair

TOKEN = "t" * 64


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 16):
        yield data[start : start + (1 << 16)]


@asynccontextmanager
async def copy_server(images: ImageStore, fleet: Identities, name: str) -> AsyncIterator[int]:
    context = build_copy_context()
    load_pair(context, fleet.node(name))
    server = CopyServer(images)
    try:
        yield await server.start("127.0.0.1", 0, context)
    finally:
        await server.stop()


@asynccontextmanager
async def holder(root: Path, fleet: Identities, data: bytes, name: str = "node-a") -> AsyncIterator[Peer]:
    """A node that has the image by an upload, and gives copies."""
    root.mkdir()
    async with running_store(root) as (images, _):
        await images.put(image(None, copy_token=TOKEN))
        await images.receive(UID, 0, len(data), pieces(data))
        await images.finish_upload(UID, len(data), hashlib.sha256(data).hexdigest())
        report = await until(images, lambda r: r.phase is ImagePhase.READY)
        async with copy_server(images, fleet, name) as port:
            yield Peer(
                node=name,
                address=f"127.0.0.1:{port}",
                sha256=report.sha256 or "",
                size_bytes=report.file_size_bytes or 0,
            )
