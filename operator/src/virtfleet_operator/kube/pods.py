"""The pods that hold volumes for machines, in memory: listed and watched by their labels, so that no other is read.

kopf would read every pod of the cluster and then choose among them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from virtfleet_api.names import MACHINE_UID_LABEL
from virtfleet_operator.core.holder import holder_selector
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import KubeError, NotFoundError
from virtfleet_operator.kube.paths import PODS

log: Final = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0

_Place = tuple[str, str]
"""Namespace of the pod, and the machine's UID on its label."""


class HolderPods:
    """The holders as they were seen last, by the machine that they are for."""

    def __init__(self, client: KubeClient, changed: Callable[[str], None]) -> None:
        """Take who is told the UID of each machine whose pods have changed."""
        self._client = client
        self._changed = changed
        self._pods: dict[_Place, dict[str, Body]] = {}
        self._version = ""

    def of(self, namespace: str, uid: str) -> Mapping[str, Body]:
        """Return the pods of a machine by name."""
        return self._pods.get((namespace, uid), {})

    async def fill(self) -> None:
        """List the pods.

        Raises:
            KubeError: the API server did not answer.
        """
        found: dict[_Place, dict[str, Body]] = {}
        async for page in self._client.list_pages(PODS.collection(), selector=holder_selector()):
            self._version = page["metadata"]["resourceVersion"]
            for pod in page["items"]:
                found.setdefault(_place(pod), {})[pod["metadata"]["name"]] = pod
        before, self._pods = self._pods, found
        for place in before.keys() | found.keys():
            if before.get(place) != found.get(place):
                self._changed(place[1])

    async def run(self) -> None:
        """Follow the pods, listed before, until cancelled."""
        while True:
            try:
                await self._follow()
                await asyncio.sleep(RETRY_SECONDS)  # nothing is missed: the next watch begins where this one ended
            except NotFoundError:
                await self._list_again()
            except KubeError as error:
                log.warning("Retrying watch pods", extra={"action": "watch", "reason": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
                await self._list_again()

    async def _list_again(self) -> None:
        while True:
            try:
                return await self.fill()
            except KubeError as error:
                log.warning("Retrying list pods", extra={"action": "watch", "reason": str(error)})
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        """Take the events of one watch."""
        async for event in self._client.watch(PODS.collection(), self._version, holder_selector()):
            pod: Body = event["object"]
            self._version = pod["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._take(pod, gone=event["type"] == "DELETED")

    def _take(self, pod: Body, *, gone: bool) -> None:
        """Take a version of a pod; one that loses its label comes as deleted."""
        place, name = _place(pod), pod["metadata"]["name"]
        pods = {known: body for known, body in self._pods.get(place, {}).items() if known != name}
        if not gone:
            pods[name] = pod
        if pods:
            self._pods[place] = pods
        else:
            self._pods.pop(place, None)
        self._changed(place[1])


def _place(pod: Body) -> _Place:
    metadata = pod["metadata"]
    return metadata["namespace"], (metadata.get("labels") or {}).get(MACHINE_UID_LABEL, "")
