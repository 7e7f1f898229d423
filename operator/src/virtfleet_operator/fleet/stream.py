"""Follows one node's watch stream for as long as the node is in the fleet: connect, read, reconnect.

A node is lost when nothing was heard of it for three heartbeats, not when a connection breaks: a daemon that is
restarted within that time is not worth a word to anybody.
"""

import asyncio
import logging
import random
from typing import Final

from virtfleet_api.node_api import HEARTBEAT_SECONDS
from virtfleet_operator.fleet.client import NodeClient
from virtfleet_operator.fleet.errors import NodeError, NodeProtocolError
from virtfleet_operator.fleet.state import NodeState

log: Final = logging.getLogger(__name__)

SILENCE_SECONDS: Final = 3 * HEARTBEAT_SECONDS

FIRST_RECONNECT_SECONDS: Final = 0.2
LONGEST_RECONNECT_SECONDS: Final = 5.0
"""A node that comes back is seen within five seconds; 1,000 dead nodes cost 200 connection attempts a second."""


class NodeStream:
    """The stream of one node."""

    def __init__(self, client: NodeClient, state: NodeState, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._client = client
        self._state = state
        self._silence_seconds = silence_seconds
        self._heard_at = 0.0
        self._failures = 0

    async def run(self) -> None:
        """Follow the node until cancelled."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        watchdog = asyncio.create_task(self._watch_silence(), name=f"silence of {self._state.name}")
        try:
            while True:
                await self._follow()
                self._failures += 1
                await asyncio.sleep(self._delay())
        finally:
            watchdog.cancel()

    async def _follow(self) -> None:
        name = self._state.name
        log.info("Connecting to %s", name, extra={"action": "watch", "node": name, "address": self._client.address})
        reason = "the node ended the stream"
        try:
            async for event in self._client.watch(self._state.cursor, self._silence_seconds):
                self._heard_at = asyncio.get_running_loop().time()
                self._failures = 0
                self._state.take(event)
        except NodeProtocolError as error:
            # Its reports may be half taken: ask for the whole state again.
            self._state.cursor, reason = None, str(error)
        except NodeError as error:
            reason = str(error)
        log.warning("Reconnecting to %s", name, extra={"action": "watch", "node": name, "reason": reason})

    async def _watch_silence(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._heard_at + self._silence_seconds - loop.time()
            if left <= 0:
                self._state.mark_lost()
                left = self._silence_seconds
            await asyncio.sleep(left)

    def _delay(self) -> float:
        longest = min(FIRST_RECONNECT_SECONDS * 2.0 ** min(self._failures, 8), LONGEST_RECONNECT_SECONDS)
        return longest * random.uniform(0.5, 1)  # noqa: S311 -- spreads reconnects, keeps no secret
