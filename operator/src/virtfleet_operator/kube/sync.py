"""Filling the cache at the start, and finding now and then what vanished unseen.

The watch (kopf's) lists again after a gap, but says nothing of what was deleted within it; this does. Everything else
comes from the watch.
"""

import logging
from typing import Final

from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.paths import OUR_PATHS, KindPath

log: Final = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 600.0
"""How long a deletion that no watch has shown may go unnoticed. Metadata of 10,000 objects is 5 MB each time."""


async def fill(client: KubeClient, cache: Cache) -> None:
    """Read every object of virtfleet's kinds into the cache.

    Raises:
        UnavailableError: the kinds are not installed.
        KubeError: the API server did not answer.
    """
    # Classes and images first: what a machine weighs and uses is known when it is counted.
    # Machines before their snapshots, which go when there is no machine.
    first = (
        "VMClass",
        "VMImage",
        "VMNode",
        "VMDisk",
        "VirtualMachine",
        "VMSnapshot",
        "VMRestore",
        "VMSnapshotSchedule",
    )
    for kind in first:
        async for page in client.list_pages(OUR_PATHS[kind].collection()):
            for body in page["items"]:
                cache.put(kind, body)


async def drop_vanished(client: KubeClient, cache: Cache) -> None:
    """Remove from the cache what the API server does not have any more.

    Raises:
        KubeError: the API server did not answer.
    """
    for kind, path in OUR_PATHS.items():
        version, present = await _list_uids(client, path)
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
