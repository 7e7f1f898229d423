"""Uploads over HTTP: a file arrives in pieces, one request each, and what of a piece arrives before a break is kept."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from virtfleet_api.image import PieceQuery, UploadState
from virtfleet_api.node_api import MAX_PIECE_BYTES
from virtfleet_node.api.ports import Uploads
from virtfleet_node.core.errors import InvalidError

STALL_SECONDS: Final = 30.0
"""A sender that is silent for so long is gone; it asks how much is there and goes on."""


async def take_piece(uploads: Uploads, uid: str, request: web.Request) -> UploadState:
    """Take one piece, or the word that there are no more; the NodeError of the store, or InvalidError."""
    try:
        query = PieceQuery.model_validate(dict(request.query))
    except ValidationError:
        raise InvalidError("The query must say offset, and may say size and sha256.") from None
    if query.sha256 is not None:
        return await uploads.finish_upload(uid, query.offset, query.sha256)
    return await uploads.receive(uid, query.offset, query.size, _body(request))


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body until it ends, breaks off or stalls; InvalidError when it is larger than a piece."""
    size = 0
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await request.content.readany()
        except (TimeoutError, ConnectionError, aiohttp.ClientError, web.RequestPayloadError):
            return
        if not chunk:
            return
        size += len(chunk)
        if size > MAX_PIECE_BYTES:
            raise InvalidError(f"A piece has at most {MAX_PIECE_BYTES} bytes.")
        yield chunk
