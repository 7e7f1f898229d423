"""The daemon's HTTPS server: routes of `virtfleet_api.node_api`, for operators alone.

It decides nothing: it bounds and parses what comes in, asks the daemon, and turns errors into Problems.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiohttp import web
from pydantic import ValidationError

from virtfleet_api.base import Document
from virtfleet_api.image import Image
from virtfleet_api.machine import Machine
from virtfleet_api.node_api import EPOCH_HEADER, MAX_DOCUMENT_BYTES, ImageList, MachineList, Problem, ProblemReason
from virtfleet_node.api.access import check_operator
from virtfleet_node.api.console import Consoles
from virtfleet_node.api.epoch import EpochGuard
from virtfleet_node.api.journal import Journal
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.ports import Daemon
from virtfleet_node.core.errors import InvalidError, NodeError

_LOG = logging.getLogger(__name__)

_STATUS: Final = {
    ProblemReason.INVALID: 400,
    ProblemReason.FORBIDDEN: 403,
    ProblemReason.NOT_FOUND: 404,
    ProblemReason.CONFLICT: 409,
    ProblemReason.STALE_EPOCH: 409,
    ProblemReason.UNAVAILABLE: 503,
}

_SHUTDOWN_SECONDS: Final = 2.0
"""Open streams get no longer to end: operators come back and resume."""

D = TypeVar("D", bound=Document)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The server, from start to stop."""

    def __init__(self, daemon: Daemon, journal: Journal, guard: EpochGuard, metrics: ApiMetrics) -> None:
        self._daemon = daemon
        self._journal = journal
        self._guard = guard
        self._metrics = metrics
        self._consoles = Consoles(daemon)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen, and return the port."""
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """End all streams and listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_DOCUMENT_BYTES, middlewares=[self._guarded])
        app.router.add_get("/v1/machines", self._list_machines)
        app.router.add_get("/v1/machines/{uid}", self._get_machine)
        app.router.add_put("/v1/machines/{uid}", self._put_machine)
        app.router.add_delete("/v1/machines/{uid}", self._delete_machine)
        app.router.add_get("/v1/machines/{uid}/console", self._console)
        app.router.add_get("/v1/images", self._list_images)
        app.router.add_put("/v1/images/{uid}", self._put_image)
        app.router.add_get("/v1/node", self._node)
        app.router.add_get("/v1/watch", self._watch)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_operator(request)
            response = await handler(request)
        except NodeError as error:
            response = _problem(error.reason, str(error))
        except web.HTTPRequestEntityTooLarge:
            response = _problem(ProblemReason.INVALID, f"The body is larger than {MAX_DOCUMENT_BYTES} bytes.")
        except web.HTTPException as error:
            response = _problem(ProblemReason.NOT_FOUND, f"{request.method} is not served there.", error.status)
        except Exception:  # noqa: BLE001 -- a fault of ours must reach the peer as a Problem, and the log whole
            _LOG.exception("Answering a request failed", extra={"method": request.method, "path": request.path})
            response = _problem(ProblemReason.UNAVAILABLE, "The daemon failed; its log says why.")
        self._metrics.count(request.method, response.status)
        return response

    async def _list_machines(self, _: web.Request) -> web.Response:
        return _answer(MachineList(items=self._daemon.list_machines()))

    async def _get_machine(self, request: web.Request) -> web.Response:
        return _answer(self._daemon.get_machine(request.match_info["uid"]))

    async def _put_machine(self, request: web.Request) -> web.Response:
        self._guard.admit(request.headers.get(EPOCH_HEADER))
        machine = await _read(request, Machine)
        _check_uid(request, machine.uid)
        return _answer(await self._daemon.put_machine(machine))

    async def _delete_machine(self, request: web.Request) -> web.Response:
        self._guard.admit(request.headers.get(EPOCH_HEADER))
        return _answer(await self._daemon.delete_machine(request.match_info["uid"]))

    async def _list_images(self, _: web.Request) -> web.Response:
        return _answer(ImageList(items=self._daemon.list_images()))

    async def _put_image(self, request: web.Request) -> web.Response:
        self._guard.admit(request.headers.get(EPOCH_HEADER))
        image = await _read(request, Image)
        _check_uid(request, image.uid)
        return _answer(await self._daemon.put_image(image))

    async def _node(self, _: web.Request) -> web.Response:
        return _answer(self._daemon.node_report())

    async def _console(self, request: web.Request) -> web.StreamResponse:
        return await self._consoles.serve(request)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with self._metrics.watching():
            async for event in self._journal.watch(request.query.get("cursor")):
                await response.write(event.model_dump_json(exclude_none=True).encode() + b"\n")
        return response


async def _read(request: web.Request, kind: type[D]) -> D:
    """Parse the body; InvalidError names the first fields that are wrong."""
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in error.errors()[:5]]
        raise InvalidError(f"Not a valid {kind.__name__} document: {'; '.join(found)}.") from None


def _check_uid(request: web.Request, uid: str) -> None:
    if request.match_info["uid"] != uid:
        raise InvalidError("The UID of the path differs from that of the document.")


def _answer(document: Document) -> web.Response:
    return web.Response(body=document.model_dump_json(exclude_none=True).encode(), content_type="application/json")


def _problem(reason: ProblemReason, message: str, status: int | None = None) -> web.Response:
    body = Problem(reason=reason, message=message).model_dump_json().encode()
    return web.Response(status=status or _STATUS[reason], body=body, content_type="application/json")
