"""Kubernetes Events: told to users on transitions, at the API server's convenience.

They are lost rather than waited for: a full queue or a failing server never holds up or fails a reconcile.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from virtfleet_api.names import API_VERSION, FIELD_MANAGER
from virtfleet_operator.core.events import EventText
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.kube.paths import EVENTS

log: Final = logging.getLogger(__name__)

MOST_QUEUED: Final = 1000
"""A burst of a thousand transitions; more says nothing that people would read."""

MOST_REMEMBERED: Final = 4096
"""Events whose repetition is counted instead of posted anew; as many as client-go's correlator keeps."""

LONGEST_MESSAGE: Final = 1024
"""The API server refuses a longer note."""


@dataclass(frozen=True)
class _Told:
    name: str
    count: int
    first: str


class EventRecorder:
    """Posts events in the background."""

    def __init__(
        self, client: KubeClient, instance: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._client = client
        self._instance = instance
        self._clock = clock
        self._queue: asyncio.Queue[tuple[Stored, EventText]] = asyncio.Queue(MOST_QUEUED)
        self._told: OrderedDict[tuple[str, str, str], _Told] = OrderedDict()

    def post(self, regarding: Stored, text: EventText) -> None:
        """Have an event posted, or dropped if too many wait."""
        try:
            self._queue.put_nowait((regarding, text))
        except asyncio.QueueFull:
            log.info("Dropping an event of %s", regarding.key, extra={"action": "event", "reason": text.reason})

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            regarding, text = await self._queue.get()
            try:
                await self._send(regarding, text)
            except KubeError as error:
                log.info("Dropping an event of %s", regarding.key, extra={"action": "event", "reason": str(error)})

    async def _send(self, regarding: Stored, text: EventText) -> None:
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        identity = (regarding.uid, text.reason, text.message)
        namespace = regarding.key.namespace or "default"  # where Events of cluster-scoped objects live
        if told := self._told.get(identity):
            told = _Told(told.name, told.count + 1, told.first)
            change: Body = {"count": told.count, "lastTimestamp": now}
            await self._client.patch(EVENTS.object(namespace, told.name), change)
        else:
            told = _Told(self._name(regarding, identity, now), 1, now)
            await self._client.create(EVENTS.collection(namespace), self._build(regarding, text, told))
        self._told[identity] = told
        self._told.move_to_end(identity)
        if len(self._told) > MOST_REMEMBERED:
            self._told.popitem(last=False)

    @staticmethod
    def _name(regarding: Stored, identity: tuple[str, str, str], now: str) -> str:
        digest = hashlib.sha256("\0".join((*identity, now)).encode()).hexdigest()
        return f"{regarding.key.name[:200]}.{digest[:16]}"

    def _build(self, regarding: Stored, text: EventText, told: _Told) -> Body:
        namespace = regarding.key.namespace or "default"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": told.name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": regarding.key.kind,
                "namespace": regarding.key.namespace,
                "name": regarding.key.name,
                "uid": regarding.uid,
                "resourceVersion": str(regarding.version),
            },
            "type": text.type,
            "reason": text.reason,
            "message": text.message[:LONGEST_MESSAGE],
            "count": 1,
            "firstTimestamp": told.first,
            "lastTimestamp": told.first,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance[:128],
        }
