"""The daemon's HTTPS server: routes of `virtfleet_api.node_api`, for operators alone.

It decides nothing: it bounds and parses what comes in, asks the daemon, and turns errors into Problems.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from virtfleet_api.image import Image
from virtfleet_api.machine import Machine
from virtfleet_api.names import UID_PATTERN
from virtfleet_api.node_api import (
    EPOCH_HEADER,
    MAX_DOCUMENT_BYTES,
    ImageList,
    MachineList,
    ProblemReason,
    SnapshotList,
)
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import PoolSet
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_node.api.access import check_operator
from virtfleet_node.api.console import Consoles
from virtfleet_node.api.display import Displays
from virtfleet_node.api.epoch import EpochGuard
from virtfleet_node.api.forward import Forwards
from virtfleet_node.api.journal import Journal
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.ports import Daemon, Forwarder, Uploads
from virtfleet_node.api.problems import answer, read_document, refuse, refuse_http
from virtfleet_node.api.streams import Streams
from virtfleet_node.api.uploads import take_piece
from virtfleet_node.core.errors import InvalidError, NodeError

_LOG = logging.getLogger(__name__)

_SHUTDOWN_SECONDS: Final = 2.0
"""Open streams get no longer to end: operators come back and resume."""

_HANDSHAKE_SECONDS: Final = 10.0
"""A TLS handshake takes two round trips; asyncio's own bound is 60 s."""

_UID: Final = re.compile(UID_PATTERN)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The server, from start to stop."""

    def __init__(
        self,
        daemon: Daemon,
        journal: Journal,
        guard: EpochGuard,
        metrics: ApiMetrics,
        uploads: Uploads | None = None,
        forwarder: Forwarder | None = None,
    ) -> None:
        self._daemon = daemon
        self._uploads = uploads
        self._guard = guard
        self._metrics = metrics
        self._streams = Streams(journal, metrics)
        self._consoles = Consoles(daemon, metrics)
        self._forwards = Forwards(forwarder, metrics) if forwarder is not None else None
        self._displays = Displays(daemon, metrics)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen, and return the port."""
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        assert self._runner.server  # noqa: S101 -- made by setup
        # web.TCPSite has no bound for the handshake.
        self._listener = await asyncio.get_running_loop().create_server(
            self._runner.server, host, port, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SECONDS
        )
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """End all streams and listen no more."""
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_DOCUMENT_BYTES, middlewares=[self._guarded])
        app.on_shutdown.append(self._end_streams)
        app.router.add_get("/v1/machines", self._list_machines)
        app.router.add_get("/v1/machines/{uid}", self._get_machine)
        app.router.add_put("/v1/machines/{uid}", self._put_machine)
        app.router.add_delete("/v1/machines/{uid}", self._delete_machine)
        app.router.add_get("/v1/machines/{uid}/interfaces", self._list_interfaces)
        app.router.add_get("/v1/machines/{uid}/console", self._console)
        app.router.add_get("/v1/machines/{uid}/vnc", self._vnc)
        app.router.add_get("/v1/images", self._list_images)
        app.router.add_put("/v1/images/{uid}", self._put_image)
        app.router.add_get("/v1/snapshots", self._list_snapshots)
        app.router.add_put("/v1/snapshots/{uid}", self._put_snapshot)
        app.router.add_put("/v1/pools", self._put_pools)
        app.router.add_put("/v1/network", self._put_network)
        if self._forwards is not None:
            app.router.add_get("/v1/machines/{uid}/portforward", self._forward)
        if self._uploads is not None:
            app.router.add_get("/v1/images/{uid}/upload", self._get_upload)
            app.router.add_put("/v1/images/{uid}/upload", self._put_upload)
        app.router.add_get("/v1/node", self._node)
        app.router.add_get("/v1/watch", self._streams.serve)
        return app

    async def _end_streams(self, _: web.Application) -> None:
        self._streams.end()
        self._consoles.end()
        if self._forwards is not None:
            self._forwards.end()
        self._displays.end()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_operator(request)
            response = await handler(request)
        except NodeError as error:
            response = self._refuse(request, error.reason, refuse(error.reason, str(error)), str(error))
        except web.HTTPException as error:
            reason, refusal = refuse_http(request, error)
            response = self._refuse(request, reason, refusal, error.reason)
        except Exception:  # noqa: BLE001 -- logged with its trace; the peer gets a sentence and never the trace
            _LOG.exception("Answering a request failed", extra={"method": request.method, "path": request.path})
            response = refuse(ProblemReason.UNAVAILABLE, "The daemon failed; its log says why.", 500)
        self._metrics.count(request.method, response.status)
        return response

    def _refuse(self, request: web.Request, reason: ProblemReason, refusal: web.Response, why: str) -> web.Response:
        facts = {"method": request.method, "path": request.path[:200], "peer": request.remote, "reason": why}
        _LOG.warning("Refusing a request", extra=facts)
        self._metrics.count_refusal(reason)
        return refusal

    def _admit(self, request: web.Request) -> None:
        """Check the epoch. Nothing may be awaited between this and the daemon: a newer leader could come in between."""
        self._guard.admit(request.headers.get(EPOCH_HEADER))

    async def _list_machines(self, _: web.Request) -> web.Response:
        return answer(MachineList(items=self._daemon.list_machines()))

    async def _get_machine(self, request: web.Request) -> web.Response:
        return answer(self._daemon.get_machine(_parse_uid(request)))

    async def _list_interfaces(self, request: web.Request) -> web.Response:
        return answer(await self._daemon.list_interfaces(_parse_uid(request)))

    async def _put_machine(self, request: web.Request) -> web.Response:
        machine = await read_document(request, Machine)
        _check_same(_parse_uid(request), machine.uid)
        self._admit(request)
        return answer(await self._daemon.put_machine(machine))

    async def _delete_machine(self, request: web.Request) -> web.Response:
        uid = _parse_uid(request)
        self._admit(request)
        return answer(await self._daemon.delete_machine(uid))

    async def _list_images(self, _: web.Request) -> web.Response:
        return answer(ImageList(items=self._daemon.list_images()))

    async def _put_image(self, request: web.Request) -> web.Response:
        image = await read_document(request, Image)
        _check_same(_parse_uid(request), image.uid)
        self._admit(request)
        return answer(await self._daemon.put_image(image))

    async def _list_snapshots(self, _: web.Request) -> web.Response:
        return answer(SnapshotList(items=self._daemon.list_snapshots()))

    async def _put_snapshot(self, request: web.Request) -> web.Response:
        snapshot = await read_document(request, MachineSnapshot)
        _check_same(_parse_uid(request), snapshot.uid)
        self._admit(request)
        return answer(await self._daemon.put_snapshot(snapshot))

    async def _put_pools(self, request: web.Request) -> web.Response:
        wanted = await read_document(request, PoolSet)
        self._admit(request)
        return answer(await self._daemon.put_pools(wanted))

    async def _put_network(self, request: web.Request) -> web.Response:
        wanted = await read_document(request, NodeNetwork)
        self._admit(request)
        return answer(await self._daemon.put_network(wanted))

    async def _get_upload(self, request: web.Request) -> web.Response:
        assert self._uploads is not None  # noqa: S101 -- else there is no such route
        return answer(self._uploads.upload_state(_parse_uid(request)))

    async def _put_upload(self, request: web.Request) -> web.Response:
        assert self._uploads is not None  # noqa: S101 -- else there is no such route
        uid = _parse_uid(request)
        self._admit(request)
        return answer(await take_piece(self._uploads, uid, request))

    async def _node(self, _: web.Request) -> web.Response:
        return answer(self._daemon.node_report())

    async def _console(self, request: web.Request) -> web.StreamResponse:
        return await self._consoles.serve(request, _parse_uid(request))

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._forwards is not None  # noqa: S101 -- else there is no such route
        return await self._forwards.serve(request, _parse_uid(request))

    async def _vnc(self, request: web.Request) -> web.StreamResponse:
        return await self._displays.serve(request, _parse_uid(request))


def _parse_uid(request: web.Request) -> str:
    """Return the UID in the path. It becomes a file name, so nothing else than a UID may pass: InvalidError."""
    uid = request.match_info["uid"]
    if not _UID.fullmatch(uid):
        raise InvalidError("The path must name a UID such as 0e2c1f54-8a0b-4c3d-9e6f-1a2b3c4d5e6f.")
    return uid


def _check_same(in_path: str, in_document: str) -> None:
    if in_path != in_document:
        raise InvalidError("The UID of the path differs from that of the document.")
