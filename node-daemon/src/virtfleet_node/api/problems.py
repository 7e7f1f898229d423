"""Documents in and out: bodies are bounded in size and time, and what goes wrong becomes a Problem with a sentence."""

import asyncio
from typing import Final, TypeVar

from aiohttp import web
from pydantic import ValidationError

from virtfleet_api.base import Document
from virtfleet_api.node_api import MAX_DOCUMENT_BYTES, Problem, ProblemReason
from virtfleet_node.core.errors import InvalidError

BODY_SECONDS: Final = 15.0
"""How long a document of a megabyte may take to arrive; an operator gives up after 20 s."""

_MOST_NAMED: Final = 5
"""Fields of a document that are named as wrong."""

_STATUS: Final = {
    ProblemReason.INVALID: 400,
    ProblemReason.FORBIDDEN: 403,
    ProblemReason.NOT_FOUND: 404,
    ProblemReason.CONFLICT: 409,
    ProblemReason.STALE_EPOCH: 409,
    ProblemReason.UNAVAILABLE: 503,
}

D = TypeVar("D", bound=Document)


async def read_document(request: web.Request, kind: type[D]) -> D:
    """Read and parse the body; InvalidError names the first fields that are wrong."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise InvalidError(f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
    return parse_document(body, kind)


def parse_document(body: bytes, kind: type[D]) -> D:
    """Parse a document; InvalidError. Values are not repeated: they may be secret."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)[:_MOST_NAMED]
        text = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in found)
        raise InvalidError(f"Not a valid {kind.__name__} document: {text}.") from None


def answer(document: Document) -> web.Response:
    """Answer with a document."""
    return web.Response(body=document.model_dump_json(exclude_none=True).encode(), content_type="application/json")


def refuse(reason: ProblemReason, message: str, status: int | None = None) -> web.Response:
    """Answer with a Problem."""
    body = Problem(reason=reason, message=message).model_dump_json().encode()
    return web.Response(status=status or _STATUS[reason], body=body, content_type="application/json")


def refuse_http(request: web.Request, error: web.HTTPException) -> tuple[ProblemReason, web.Response]:
    """Answer what the library refuses: no such route, no such method, too large a body."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        reason, message = ProblemReason.INVALID, f"The body is larger than {MAX_DOCUMENT_BYTES} bytes."
    elif isinstance(error, web.HTTPNotFound | web.HTTPMethodNotAllowed):
        reason, message = ProblemReason.NOT_FOUND, f"{request.method} is not served there."
    else:
        reason, message = ProblemReason.INVALID, f"The request is refused: {error.reason}."
    return reason, refuse(reason, message, error.status)
