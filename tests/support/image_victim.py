"""A process that takes an upload, or copies an image from another node, over and over, to be killed at any moment.

python image_victim.py POOL upload FILE [ROUNDS]
python image_victim.py POOL copy DOCUMENT CA [ROUNDS]
"""

import asyncio
import hashlib
import itertools
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from image_stores import UID, image
from virtfleet_api.image import Image
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.pools import Pools

PIECE_BYTES = 1 << 20


async def main() -> None:
    root, kind, given, *more = sys.argv[1:]
    content, wanted, tls = b"", image(None), None
    if kind == "copy":
        wanted = Image.model_validate_json(Path(given).read_bytes())
        tls = ssl.create_default_context(cafile=more.pop(0))
    else:
        content = Path(given).read_bytes()
    pools = Pools({"default": Path(root)})
    pools.prepare()
    images = ImageStore(pools, DiskStore(pools), peer_tls=lambda: tls or True)
    await images.start()
    _say("started")
    for _ in range(int(more[0])) if more else itertools.count():
        await images.put(wanted)
        if kind == "upload":
            await _upload(images, content)
        while (files := images.files(UID)) is None:
            await asyncio.sleep(0.002)
        assert hashlib.sha256(files.path.read_bytes()).hexdigest() == images.reports()[0].sha256
        assert not content or files.path.read_bytes() == content
        await images.put(wanted.model_copy(update={"present": False}))
        _say("round")


async def _upload(images: ImageStore, content: bytes) -> None:
    """Go on where an earlier process was killed; one that was killed after the end needs nothing more."""
    while (state := images.upload_state(UID)).phase is not ImagePhase.READY:
        at = state.received_bytes
        if (Path(sys.argv[1]) / "images" / UID / "upload.json").exists():
            await asyncio.sleep(0.002)
        elif at < len(content):
            await images.receive(UID, at, len(content), _once(content[at : at + PIECE_BYTES]))
        else:
            await images.finish_upload(UID, len(content), hashlib.sha256(content).hexdigest())


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _say(text: str) -> None:
    """Tell the test how far it is, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


asyncio.run(main())
