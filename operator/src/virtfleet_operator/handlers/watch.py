"""kopf's watch events go into the cache, which tells the controller. There is no other kind of handler.

Also: how kopf logs in, and whether its watches are alive.
"""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf

from virtfleet_api.kinds import KINDS
from virtfleet_api.names import GROUP, VERSION
from virtfleet_api.resource import Resource
from virtfleet_operator.kube.cache import Cache, build_key
from virtfleet_operator.kube.connection import Connection

SERVER_TIMEOUT_SECONDS: Final = 300
"""How long the API server keeps one watch open."""

DEAD_AFTER_SECONDS: Final = 2.0 * SERVER_TIMEOUT_SECONDS
"""A watch gets a bookmark each minute and ends after the server's timeout: silence for two of these is death."""


def register(registry: kopf.OperatorRegistry, cache: Cache) -> None:
    """Watch every kind into the cache."""
    for kind in KINDS:
        kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id="cache")(_build_handler(kind, cache))


def _build_handler(kind: type[Resource], cache: Cache) -> Any:
    async def take(event: kopf.RawEvent, **_: Any) -> None:
        """Take one event into the cache."""
        body: dict[str, Any] = dict(event["object"])
        if event["type"] == "DELETED":
            cache.remove(build_key(kind.__name__, body), body["metadata"]["uid"])
        else:
            cache.put(kind.__name__, body)

    return take


class WatchActivity:
    """When each watch was last heard, and when it lists, which it does at its start and after a gap."""

    def __init__(self, listed: Callable[[str], None]) -> None:
        """Take what is called with the kind that has been listed."""
        self._listed = listed
        self._kinds = {kind.plural: kind.__name__ for kind in KINDS}
        self._heard_at = dict.fromkeys(self._kinds, asyncio.get_running_loop().time())

    def trace(self) -> aiohttp.TraceConfig:
        """Return what makes a session tell of its responses."""
        trace = aiohttp.TraceConfig()
        trace.on_response_chunk_received.append(self._heard)
        trace.on_request_end.append(self._heard)
        trace.on_request_end.append(self._ended)
        return trace

    def problem(self) -> str | None:
        """Say which watch is dead, if one is."""
        now = asyncio.get_running_loop().time()
        silent = {plural: now - heard for plural, heard in self._heard_at.items() if now - heard > DEAD_AFTER_SECONDS}
        return "; ".join(f"the watch of {plural} is silent for {age:.0f} s" for plural, age in silent.items()) or None

    async def _heard(
        self,
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        params: aiohttp.TraceResponseChunkReceivedParams | aiohttp.TraceRequestEndParams,
    ) -> None:
        plural = params.url.name
        if plural in self._heard_at:
            self._heard_at[plural] = asyncio.get_running_loop().time()

    async def _ended(
        self, _session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        if params.url.name in self._kinds and "watch" not in params.url.query:
            self._listed(self._kinds[params.url.name])


def register_login(registry: kopf.OperatorRegistry, connection: Connection, activity: WatchActivity) -> None:
    """Have kopf use the operator's own connection."""

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: Any) -> kopf.AiohttpSession:
        """Open a session, again when kopf finds the former refused."""
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=connection.open_session(activity.trace()))
