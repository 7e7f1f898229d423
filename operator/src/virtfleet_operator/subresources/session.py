"""One session at a console or display: bytes both ways, until a side ends, machine or right are gone.

Nothing is queued here. Each side is read only when the other has taken what was read before, so a slow side slows the
other instead of filling memory.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from virtfleet_api.resource import ObjectMeta
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.subresources.front_proxy import User
from virtfleet_operator.subresources.ports import Cluster, Target

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES: Final = 65536
"""Largest frame of either side, as the node's interface says; aiohttp's limit is the first size that is too large."""

HEARTBEAT_SECONDS: Final = 20.0
"""Pings keep idle consoles open: load balancers in front of API servers cut connections after 30 s or more."""

SEND_TIMEOUT_SECONDS: Final = 30.0
"""A side that takes nothing for so long has gone away without saying so."""

LAST_WORD_SECONDS: Final = 1.0
"""How long a side that takes nothing more may take to be known for having ended the session."""

CHECK_SECONDS: Final = 5.0
"""How long a session may outlive the object or the right; two requests of about a millisecond each time."""

UNCHECKED_LIMIT_SECONDS: Final = 60.0
"""How long a session goes on while the API server cannot be asked: a leader election of etcd fits in."""

WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


@dataclass(frozen=True)
class Ending:
    """Why a session ended; SERVICE_RESTART tells the client that it may connect again."""

    code: WSCloseCode
    sentence: str


@dataclass(frozen=True)
class Way:
    """A way to a guest."""

    subresource: str
    """Of virtualmachines, as the right to it is called."""
    called: str
    """In sentences."""
    action: str
    """In the log: Open… and Close…."""
    ended: str
    """What it means that the node ends it."""
    command: str = ""
    """Of `kubectl vm`, where it is called otherwise than the subresource."""


CONSOLE: Final = Way("console", "console", "Console", "has no more output: it stopped, or its history ends here.")
DISPLAY: Final = Way("vnc", "display", "Display", "has stopped.")
FORWARD: Final = Way("portforward", "TCP port", "Forward", "has ended the connection.", "port-forward")


@dataclass(frozen=True)
class Session:
    """A user at the console or the display of a machine."""

    cluster: Cluster
    user: User
    target: Target
    machine: ObjectMeta
    stopping: asyncio.Event
    """Set when the operator stops."""
    way: Way = CONSOLE
    port: str = ""
    """TCP port of the guest, for the audit."""

    async def run(self, viewer: web.WebSocketResponse, node: aiohttp.ClientWebSocketResponse) -> Ending:
        """Carry bytes until the session ends, then close both sides; leave one line for the audit."""
        started = time.monotonic()
        facts = {"user": self.user.name, "machine": str(self.target), "uid": self.machine.uid}
        facts |= {"port": self.port} if self.port else {}
        called = self.way.called
        logger.info("Opening a %s", called, extra={**facts, "action": f"Open{self.way.action}"})
        ending = Ending(WSCloseCode.INTERNAL_ERROR, "The operator failed.")
        try:
            ending = await _first(
                self._from_viewer(viewer, node),
                self._from_node(node, viewer),
                self._watch_rights(),
                self._wait_for_stop(),
            )
        finally:
            seconds = round(time.monotonic() - started, 1)
            done = {"action": f"Close{self.way.action}", "seconds": seconds, "reason": ending.sentence}
            logger.info("Closing a %s", called, extra={**facts, **done})
        await asyncio.gather(_close(viewer, ending), _close(node, ending))
        return ending

    async def _from_viewer(self, viewer: web.WebSocketResponse, node: aiohttp.ClientWebSocketResponse) -> Ending:
        if not await _pump(viewer, node):
            await asyncio.sleep(LAST_WORD_SECONDS)  # when the node has ended it, what it said of that comes first
            return Ending(WSCloseCode.SERVICE_RESTART, "The node does not take input.")
        return Ending(WSCloseCode.OK, "The viewer left.")

    async def _from_node(self, node: aiohttp.ClientWebSocketResponse, viewer: web.WebSocketResponse) -> Ending:
        if not await _pump(node, viewer):
            return Ending(WSCloseCode.TRY_AGAIN_LATER, "The viewer does not take output.")
        if node.close_code == WSCloseCode.OK:
            return Ending(WSCloseCode.OK, f"{self.target} {self.way.ended}")
        if node.close_code == WSCloseCode.INTERNAL_ERROR and self.way is FORWARD:
            return Ending(WSCloseCode.INTERNAL_ERROR, f"The guest of {self.target} broke the connection off.")
        return Ending(WSCloseCode.SERVICE_RESTART, f"The connection to the node of {self.target} was lost.")

    async def _wait_for_stop(self) -> Ending:
        await self.stopping.wait()
        return Ending(WSCloseCode.SERVICE_RESTART, "The operator is stopping.")

    async def _watch_rights(self) -> Ending:
        """Return once the object is gone, the right is withdrawn, or neither could be asked for too long."""
        checked = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                ending = await self._check_rights()
            except KubeError:
                if time.monotonic() - checked > UNCHECKED_LIMIT_SECONDS:
                    return Ending(
                        WSCloseCode.SERVICE_RESTART, f"The right to this {self.way.called} cannot be checked now."
                    )
                continue
            if ending is not None:
                return ending
            checked = time.monotonic()

    async def _check_rights(self) -> Ending | None:
        machine = await self.cluster.read_machine(self.target)
        if machine is None or machine.uid != self.machine.uid:
            return Ending(WSCloseCode.OK, f"{self.target} was deleted.")
        refusal = await self.cluster.may_open(self.user, self.target, self.way.subresource)
        if refusal is not None:
            return Ending(WSCloseCode.POLICY_VIOLATION, f"The right to this {self.way.called} was withdrawn.")
        return None


async def _first(*coroutines: Coroutine[None, None, Ending]) -> Ending:
    """Return what the first to end returns, and end the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: WebSocket, sink: WebSocket) -> bool:
    """Carry frames until the source ends; False when the sink takes no more."""
    async for message in source:
        if message.type not in {WSMsgType.BINARY, WSMsgType.TEXT}:
            return True
        data = message.data if message.type is WSMsgType.BINARY else message.data.encode()
        try:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await sink.send_bytes(data)
        except (TimeoutError, ConnectionError, aiohttp.ClientError):
            return False
    return True


async def _close(side: WebSocket, ending: Ending) -> None:
    # 123 bytes: what a close frame has room for (RFC 6455, 5.5)
    await side.close(code=ending.code, message=ending.sentence.encode()[:123])
