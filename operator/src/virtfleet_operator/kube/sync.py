"""Filling the cache at the start, and finding what vanished unseen.

The watch (kopf's) tells what is there whenever it lists, and what changes from then on; it says nothing of what was
deleted between its last word and its next list, or between the filling and its first list. This finds that.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator
from typing import Final

from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.kube.paths import OUR_PATHS, KindPath

log: Final = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 600.0
"""How long what nobody can explain may go unnoticed. Metadata of 10,000 objects is 5 MB each time."""

RETRY_SECONDS: Final = 5.0

_LAST: Final = ("VirtualMachine", "VMSnapshot", "VMRestore", "VMSnapshotSchedule")
"""What machines use comes before them: classes and images, by which they are counted, switches and groups, without
which their ports would be taken away. Machines come before their snapshots, which go when there is no machine."""


async def fill(client: KubeClient, cache: Cache) -> None:
    """Read every object of virtfleet's kinds into the cache.

    Raises:
        UnavailableError: the kinds are not installed.
        KubeError: the API server did not answer.
    """
    for kind in _in_order():
        async for page in client.list_pages(OUR_PATHS[kind].collection()):
            for body in page["items"]:
                cache.put(kind, body)


def _in_order() -> Iterator[str]:
    yield from (kind for kind in OUR_PATHS if kind not in _LAST)
    yield from _LAST


class Resync:
    """Drops from the cache what the API server does not have any more."""

    def __init__(self, client: KubeClient, cache: Cache) -> None:
        self._client = client
        self._cache = cache
        self._asked: set[str] = set()
        self._wake = asyncio.Event()

    def ask(self, kind: str) -> None:
        """Have a kind looked at: its watch has listed, and what had gone before that it will not tell."""
        self._asked.add(kind)
        self._wake.set()

    async def run(self) -> None:
        """Look at what is asked for, and at everything now and then, until cancelled."""
        delay = RESYNC_SECONDS
        while True:
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                self._asked.update(OUR_PATHS)
            self._wake.clear()
            kinds, self._asked = self._asked, set()
            try:
                await drop_vanished(self._client, self._cache, kinds)
                delay = RESYNC_SECONDS
            except KubeError as error:
                log.warning("Retrying resync", extra={"action": "resync", "reason": str(error)})
                self._asked |= kinds
                delay = RETRY_SECONDS


async def drop_vanished(client: KubeClient, cache: Cache, kinds: Collection[str]) -> None:
    """Remove from the cache what the API server does not have any more of these kinds.

    Raises:
        KubeError: the API server did not answer.
    """
    for kind in kinds:
        version, present = await _list_uids(client, OUR_PATHS[kind])
        for stored in cache.all(kind):
            if stored.version <= version and stored.uid not in present:
                log.info("Forgetting %s", stored.key, extra={"action": "resync", "reason": "it vanished unseen"})
                cache.remove(stored.key, stored.uid)


async def _list_uids(client: KubeClient, path: KindPath) -> tuple[int, set[str]]:
    version = 0
    present: set[str] = set()
    async for page in client.list_pages(path.collection(), metadata_only=True):
        version = version or int(page["metadata"]["resourceVersion"])
        present.update(item["metadata"]["uid"] for item in page["items"])
    return version, present
