"""Copies of images for other nodes, on a port of their own: no certificate is asked for, but the token of the image.

A node's certificate is good for serving alone, so nodes cannot know each other by it (docs/adr/0011). Whoever connects
here is hostile until the token is shown: one request a connection, few connections, little time.
"""

import asyncio
import logging
import os
import re
import ssl
from typing import BinaryIO, Final

from aiohttp import web

from virtfleet_api.names import UID_PATTERN
from virtfleet_node.api.ports import Copies
from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.stored import ImageCopy

_LOG = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 64
MOST_COPIES: Final = 4
"""Copies under way at once: more would only share the same network and disk."""

PROOF_SECONDS: Final = 10.0
"""How long a connection may last without a good token, TLS handshake included."""

STALL_SECONDS: Final = 30.0
CHUNK_BYTES: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes=(\d{1,18})-")
_UID: Final = re.compile(UID_PATTERN)


class CopyServer:
    """Serves copies, from start to stop."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._proven: set[object] = set()

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen, and return the port; OSError when it is taken."""
        app = web.Application(client_max_size=0)
        app.router.add_get("/v1/images/{uid}/{part:content|initrd}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._accept, host, port, ssl=context, ssl_handshake_timeout=PROOF_SECONDS
        )
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Listen no more; copies under way break off, and go on elsewhere or later."""
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _accept(self) -> asyncio.BaseProtocol:
        server = self._runner.server if self._runner else None
        if server is None or len(server.connections) >= MOST_CONNECTIONS:
            return _Refusal()
        handler = server()
        asyncio.get_running_loop().call_later(PROOF_SECONDS, self._end_unproven, handler)
        return handler

    def _end_unproven(self, handler: web.RequestHandler) -> None:
        if handler not in self._proven and handler.transport is not None:
            handler.transport.abort()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        uid, part = request.match_info["uid"], request.match_info["part"]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            if not _UID.fullmatch(uid):
                raise web.HTTPNotFound
            copy = self._copies.open_copy(uid, token, initrd=part == "initrd")
        except NodeError as error:
            _LOG.warning("Refusing a copy", extra={"image": uid, "peer": request.remote})
            return _closed(web.Response(status=403, text=str(error)))
        if len(self._proven) >= MOST_COPIES:
            return _closed(web.Response(status=503, text=f"{MOST_COPIES} copies are under way here."))
        self._proven.add(request.protocol)
        try:
            return await self._send(request, copy)
        except FileNotFoundError:
            return _closed(web.Response(status=404, text="The image was removed."))
        finally:
            self._proven.discard(request.protocol)

    async def _send(self, request: web.Request, copy: ImageCopy) -> web.StreamResponse:
        with os.fdopen(os.open(copy.path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            etag = f'"{copy.sha256}"'
            start = _start(request, etag)
            if start and start >= size:
                return _closed(web.Response(status=416, headers={"Content-Range": f"bytes */{size}", "ETag": etag}))
            response = web.StreamResponse(status=206 if start else 200, headers={"ETag": etag})
            if start:
                response.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            response.content_length = size - start
            _closed(response)
            await response.prepare(request)
            file.seek(start)
            try:
                await _pour(file, response)
            except (ConnectionError, TimeoutError):  # gone, or too slow: nothing can be said to it any more
                if request.transport is not None:
                    request.transport.abort()
            return response


async def _pour(file: BinaryIO, response: web.StreamResponse) -> None:
    """Send a file to a peer that takes it; one that takes nothing for too long is cut off."""
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        async with asyncio.timeout(STALL_SECONDS):
            await response.write(chunk)
    await response.write_eof()


def _start(request: web.Request, etag: str) -> int:
    """Return where the peer wants to go on; 0 unless what it has is of this very file."""
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    return int(found[1]) if found and request.headers.get("If-Range") == etag else 0


def _closed(response: web.StreamResponse) -> web.StreamResponse:
    response.force_close()
    return response


class _Refusal(asyncio.Protocol):
    """Ends a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say nothing."""
        if isinstance(transport, asyncio.Transport):
            transport.abort()
