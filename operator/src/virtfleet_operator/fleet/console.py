"""A machine's console or display at its node: a WebSocket with the operator's certificate. Nothing is read here."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from virtfleet_api.node_api import MAX_DOCUMENT_BYTES
from virtfleet_operator.fleet.client import CONNECT_TIMEOUT_SECONDS, Dialer, build_error
from virtfleet_operator.fleet.errors import NodeUnavailableError

MAX_FRAME_BYTES: Final = 65536
"""Largest frame that a daemon sends; aiohttp's limit is the first size that is too large."""

HEARTBEAT_SECONDS: Final = 20.0
"""A node that answers no ping for half of this is away."""


@asynccontextmanager
async def open_console(
    dialer: Dialer, name: str, address: str, uid: str, query: Mapping[str, str], what: str = "console"
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Connect to the console of a machine, or with `what` to its `vnc` or `portforward`, as long as the context lasts.

    Raises:
        NodeRefusedError: the machine has none now; the message says why.
        NodeUnavailableError: the node cannot be reached.
    """

    async def read_refusal(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status != 101:  # noqa: PLR2004 -- HTTP: switching protocols, the only success of an upgrade
            content = await response.content.read(MAX_DOCUMENT_BYTES)
            raise build_error(name, response.status, content)
        return response

    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
    # A session of its own, since only a session can have the middleware that reads why an upgrade is refused.
    async with aiohttp.ClientSession(timeout=timeout, middlewares=(read_refusal,)) as session:
        try:
            console = await session.ws_connect(
                f"https://{address}/v1/machines/{uid}/{what}",
                params=dict(query),
                ssl=dialer.tls(),
                server_hostname=name,
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=MAX_FRAME_BYTES + 1,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"{name} at {address}: {type(error).__name__}: {error!s:.200}"
            raise NodeUnavailableError(message) from error
        async with console:
            yield console
