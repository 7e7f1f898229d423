"""Uploads of images through the Kubernetes API: one request a piece, passed on to the node that takes the image.

Nothing is kept here but the chunk on its way. An API server ends a request after a minute, so a file comes in pieces;
how much has arrived is the node's word.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from virtfleet_api.image import PieceQuery, UploadState
from virtfleet_api.names import SUBRESOURCES_GROUP
from virtfleet_api.node_api import MAX_PIECE_BYTES
from virtfleet_api.vm_image import ImagePhase, VMImage
from virtfleet_operator.core.copies import choose_taker
from virtfleet_operator.fleet.errors import NodeError, NodeRefusedError
from virtfleet_operator.subresources.documents import StatusError
from virtfleet_operator.subresources.front_proxy import User
from virtfleet_operator.subresources.ports import USER, Cluster, Target, Uploads

logger = logging.getLogger(__name__)

MOST_PIECES: Final = 32
"""Pieces on their way through one operator."""

STALL_SECONDS: Final = 30.0
"""A sender that is silent for so long is gone."""


class UploadHandlers:
    """Serves vmimages/upload."""

    def __init__(self, cluster: Cluster, uploads: Uploads) -> None:
        self._cluster = cluster
        self._uploads = uploads
        self._slots = asyncio.Semaphore(MOST_PIECES)

    async def state(self, request: web.Request) -> web.Response:
        """Say how much of an upload is there."""
        target = _target(request)
        image = await self._admit(request[USER], target, "get")
        uid = image.metadata.uid
        return await _answered(target, lambda node: self._uploads.upload_state(node, uid), self._taker(target, uid))

    async def piece(self, request: web.Request) -> web.Response:
        """Take one piece, or the word that there are no more."""
        target = _target(request)
        image = await self._admit(request[USER], target, "update")
        query = _read_query(request)
        uid = image.metadata.uid
        _check_open(target, image)
        if self._slots.locked():
            raise StatusError(429, "TooManyRequests", f"{MOST_PIECES} uploads are under way; try again in a moment.")
        if not query.offset or query.sha256:
            facts = {"action": "Upload", "user": request[USER].name, "image": str(target), "uid": uid}
            logger.info("Ending an upload" if query.sha256 else "Beginning an upload", extra=facts)
        async with self._slots:
            return await _answered(
                target,
                lambda node: self._uploads.send_piece(node, uid, query, _body(request)),
                self._taker(target, uid),
            )

    async def _admit(self, user: User, target: Target, verb: str) -> VMImage:
        refusal = await self._cluster.may_upload(user, target, verb)
        if refusal is not None:
            raise StatusError(
                403,
                "Forbidden",
                f'User "{user.name}" may not upload to {target}: it needs the verbs get and update on'
                f" vmimages/upload in the API group {SUBRESOURCES_GROUP} ({refusal}).",
            )
        image = await self._cluster.read_image(target)
        if image is None:
            raise StatusError(404, "NotFound", f"{target} does not exist.")
        return image

    def _taker(self, target: Target, uid: str) -> str:
        reports = self._uploads.uploading(uid)
        node = choose_taker(uid, reports)
        if node is None:
            raise StatusError(
                503, "ServiceUnavailable", f"No node is ready to take {target} yet; try again in a moment."
            )
        return node


def _target(request: web.Request) -> Target:
    return Target(request.match_info["namespace"], request.match_info["name"], "VMImage")


def _check_open(target: Target, image: VMImage) -> None:
    """Refuse an upload that the image does not wait for."""
    if image.spec.source.upload is None:
        raise StatusError(
            409, "Conflict", f"{target} has a source of its own; only one with source.upload takes a file."
        )
    if image.metadata.deletion_timestamp is not None:
        raise StatusError(409, "Conflict", f"{target} is being deleted.")
    if image.status.phase is ImagePhase.READY:
        raise StatusError(409, "Conflict", f"{target} has its content already; upload another file to another VMImage.")


async def _answered(target: Target, ask: Callable[[str], Awaitable[UploadState]], node: str) -> web.Response:
    try:
        state = await ask(node)
    except NodeRefusedError as error:
        raise StatusError(409, "Conflict", f"{target}: {error}") from error
    except NodeError as error:
        raise StatusError(
            503, "ServiceUnavailable", f"The node that takes {target} cannot be reached: {error}"
        ) from error
    return web.json_response(state.to_json_dict())


def _read_query(request: web.Request) -> PieceQuery:
    try:
        return PieceQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise StatusError(400, "BadRequest", "The query must say offset, and may say size and sha256.") from error


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body as it comes. An error ends the request to the node, too, which keeps what it has."""
    size = 0
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await request.content.readany()
        except TimeoutError:
            raise aiohttp.ClientError(f"The sender was silent for {STALL_SECONDS:.0f} s.") from None
        if not chunk:
            return
        size += len(chunk)
        if size > MAX_PIECE_BYTES:
            raise aiohttp.ClientError(f"A piece has at most {MAX_PIECE_BYTES} bytes.")
        yield chunk
