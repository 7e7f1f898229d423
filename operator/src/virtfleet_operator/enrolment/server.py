"""The HTTPS server that daemons enrol at: `POST /v1/enrol`. Anybody may connect, so everything here has a bound.

It decides nothing: it bounds and parses what comes in, asks `Enrolment`, and turns errors into Problems.
"""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from pydantic import ValidationError

from virtfleet_api.base import Document
from virtfleet_api.enrol import ENROL_PATH, MAX_ENROL_BYTES, EnrolRequest
from virtfleet_api.node_api import Problem, ProblemReason
from virtfleet_operator.enrolment.contexts import ServingPair, build_server_context, load_pair
from virtfleet_operator.enrolment.errors import EnrolmentError, InvalidRequestError
from virtfleet_operator.enrolment.rates import RateLimit
from virtfleet_operator.enrolment.service import Enrolment

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HANDSHAKE_SECONDS: Final = 10.0
"""A TLS handshake takes two round trips; asyncio's own bound is 60 s."""

IDLE_SECONDS: Final = 15
"""How long a connection may be without a request."""

BODY_SECONDS: Final = 10.0
"""How long a request of a few KiB may take to arrive."""

ANSWER_SECONDS: Final = 15.0
"""How long it may take to ask the API server; a daemon gives up after 20 s."""

AT_ONCE: Final = 16
"""Requests that may wait for the API server at the same time; the others queue here."""

_RELOAD_SECONDS: Final = 300.0
"""How often is looked whether the server's certificate has been renewed; it then has eight hours left."""

_SHUTDOWN_SECONDS: Final = 2.0


def build_answers(registry: CollectorRegistry) -> Counter:
    """Return the counter of answers."""
    counter = Counter(
        "virtfleet_enrolments_total", "Requests for a certificate, by HTTP status.", ("status",), registry=registry
    )
    counter.labels("200")  # told from the start, so that the first one is seen as an increase
    return counter


class EnrolmentServer:
    """The server, from start to stop."""

    def __init__(self, enrolment: Enrolment, serving: ServingPair, registry: CollectorRegistry) -> None:
        self._enrolment = enrolment
        self._serving = serving
        self._context = build_server_context()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._rates = RateLimit(asyncio.get_running_loop().time())
        self._answers = build_answers(registry)
        app = web.Application(client_max_size=MAX_ENROL_BYTES, middlewares=[self._answered])
        app.router.add_post(ENROL_PATH, self._enrol)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, keepalive_timeout=IDLE_SECONDS
        )
        self._listener: asyncio.Server | None = None
        self._reloading: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port."""
        loop = asyncio.get_running_loop()
        load_pair(self._context, self._serving())
        await self._runner.setup()
        assert self._runner.server  # noqa: S101 -- made by setup
        # web.TCPSite has no bound for the handshake.
        self._listener = await loop.create_server(
            self._runner.server, host, port, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        self._reloading = asyncio.create_task(self._reload(), name="certificate of the enrolment server")
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Listen no more and end what is under way."""
        if self._reloading is not None:
            self._reloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reloading
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    async def _reload(self) -> None:
        used = self._serving()
        while True:
            await asyncio.sleep(_RELOAD_SECONDS)
            if (pair := self._serving()) is not used:
                load_pair(self._context, pair)
                used = pair

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except EnrolmentError as error:
            response = _answer(Problem(reason=error.reason, message=str(error)), error.status)
        except web.HTTPException as error:
            response = _refuse(request, error.status)
        except Exception:
            # The API server does not answer, most likely. The peer learns nothing of it but that it shall come again.
            log.exception("Enrolling failed", extra={"action": "Enrol", "source": request.remote})
            response = _answer(Problem(reason=ProblemReason.UNAVAILABLE, message="Ask again later."), 503)
        self._answers.labels(str(response.status)).inc()
        return response

    async def _enrol(self, request: web.Request) -> web.StreamResponse:
        self._rates.admit(source_of(request.remote), asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        document = parse_request(body)
        async with asyncio.timeout(ANSWER_SECONDS), self._slots:
            return _answer(await self._enrolment.enrol(document), 200)


def parse_request(body: bytes) -> EnrolRequest:
    """Parse the body; InvalidRequestError names the fields that are wrong, and repeats no value: it may be a token."""
    try:
        return EnrolRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)[:5]
        text = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in found)
        raise InvalidRequestError(f"Not a valid EnrolRequest: {text}.") from None


def source_of(address: str | None) -> str:
    """Return what is counted as one source: an IPv4 address, or the /64 that an IPv6 host may choose from."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


def _refuse(request: web.Request, status: int) -> web.Response:
    if status == web.HTTPRequestEntityTooLarge.status_code:
        return _answer(
            Problem(reason=ProblemReason.INVALID, message=f"The body is larger than {MAX_ENROL_BYTES} bytes."), status
        )
    if status == web.HTTPRequestTimeout.status_code:
        return _answer(Problem(reason=ProblemReason.INVALID, message="The body did not arrive in time."), status)
    message = f"{request.method} is not served there: POST to {ENROL_PATH}."
    return _answer(Problem(reason=ProblemReason.NOT_FOUND, message=message), status)


def _answer(document: Document, status: int) -> web.Response:
    body = document.model_dump_json(exclude_none=True).encode()
    return web.Response(status=status, body=body, content_type="application/json")
