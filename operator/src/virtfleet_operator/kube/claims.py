"""PersistentVolumeClaims, PersistentVolumes and Nodes, read by name when a machine needs them.

They are not watched: a watch would keep all of them in memory for the few that machines name.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from virtfleet_operator.core.holder import claims_of, is_holding
from virtfleet_operator.core.volumes import Claim, read_claim
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import CLAIMS, NODES, VOLUMES

FRESH_SECONDS: Final = 60.0
"""How long the larger size of a claim, or a label of a node, may go unnoticed."""

MOST_REMEMBERED: Final = 10_000
MOST_AT_ONCE: Final = 8


class ClaimReader:
    """Reads claims, and what is known of where their volumes are."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._claims: dict[str, tuple[float, Claim]] = {}
        """By the UID of the pod that holds it: as long as that is there, the claim stays and is bound."""
        self._labels: dict[str, tuple[float, Mapping[str, str] | None]] = {}

    async def claim(self, namespace: str, name: str, pods: Collection[Body]) -> Claim | None:
        """Return a claim, None if there is none of that name; `pods` are the machine's holders.

        Raises:
            KubeError: the API server does not give it.
        """
        holding = (pod["metadata"]["uid"] for pod in pods if is_holding(pod) and name in claims_of(pod))
        uid, now = next(holding, None), asyncio.get_running_loop().time()
        known = self._claims.get(f"{uid}/{name}")
        if known and known[0] > now:
            return known[1]
        try:
            found = read_claim(await self._client.get(CLAIMS.object(namespace, name)))
        except NotFoundError:
            return None
        if uid is not None:
            if len(self._claims) >= MOST_REMEMBERED:
                self._claims.clear()
            self._claims[f"{uid}/{name}"] = (now + FRESH_SECONDS, found)
        return found

    async def volume(self, name: str) -> Body | None:
        """Return a PersistentVolume's JSON, None if there is none of that name.

        Raises:
            KubeError: the API server does not give it.
        """
        try:
            return await self._client.get(VOLUMES.object("", name))
        except NotFoundError:
            return None

    async def node_labels(self, names: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of those of these nodes that are Kubernetes' nodes, too.

        Raises:
            KubeError: the API server does not give them.
        """
        gate = asyncio.Semaphore(MOST_AT_ONCE)

        async def read(name: str) -> Mapping[str, str] | None:
            async with gate:
                return await self._node_labels(name)

        found = zip(names, await asyncio.gather(*(read(name) for name in names)), strict=True)
        return {name: labels for name, labels in found if labels is not None}

    async def _node_labels(self, name: str) -> Mapping[str, str] | None:
        now = asyncio.get_running_loop().time()
        known = self._labels.get(name)
        if known and known[0] > now:
            return known[1]
        try:
            labels = (await self._client.get(NODES.object("", name)))["metadata"].get("labels") or {}
        except NotFoundError:
            labels = None
        if len(self._labels) >= MOST_REMEMBERED:
            self._labels.clear()
        self._labels[name] = (now + FRESH_SECONDS, labels)
        return labels
