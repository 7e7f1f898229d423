"""The HTTP side of the aggregated API: who calls, may they, and then the console or display.

Order matters: nothing of a machine, not even whether it exists, is told before the right is confirmed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Annotated, Final, Literal

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from virtfleet_api.names import NODE_LABEL, SUBRESOURCES_API_VERSION, SUBRESOURCES_GROUP
from virtfleet_api.node_api import CONSOLE_HISTORY_BYTES
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.fleet.errors import NodeError, NodeRefusedError
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.subresources import documents
from virtfleet_operator.subresources.counters import CounterHandlers
from virtfleet_operator.subresources.documents import StatusError, build_status
from virtfleet_operator.subresources.front_proxy import FrontProxy, FrontProxyError, User, identify
from virtfleet_operator.subresources.ports import USER, Cluster, Consoles, Counters, Target, Uploads
from virtfleet_operator.subresources.session import (
    CONSOLE,
    DISPLAY,
    FORWARD,
    HEARTBEAT_SECONDS,
    MAX_FRAME_BYTES,
    Session,
    Way,
)
from virtfleet_operator.subresources.uploads import UploadHandlers

MAX_SESSIONS: Final = 512
"""Open consoles of one operator, with about 300 KiB of buffers each; as many displays, and connections to ports."""

_BYTES: Final = TypeAdapter(Annotated[int, Field(ge=0, le=CONSOLE_HISTORY_BYTES)])
_QUERY: Final[dict[str, TypeAdapter[str]]] = {
    "history": TypeAdapter(Annotated[str, AfterValidator(lambda text: str(_BYTES.validate_python(text)))]),
    "follow": TypeAdapter(Literal["true", "false"]),
}
"""What a query may say of a console; anything else is not passed on."""

_PORT: Final = TypeAdapter(Annotated[int, Field(ge=1, le=65535)])
"""What a query must say of a TCP port."""


def build_app(
    cluster: Cluster,
    consoles: Consoles,
    front_proxy: Callable[[], FrontProxy],
    uploads: Uploads | None = None,
    counters: Counters | None = None,
) -> web.Application:
    """Build the application; `front_proxy` returns how the API server proves itself at this moment."""
    server = _Server(cluster, consoles, front_proxy)
    app = web.Application(middlewares=[_tell_refusals, server.authenticate])
    group = f"/apis/{SUBRESOURCES_GROUP}"
    version = f"/apis/{SUBRESOURCES_API_VERSION}"
    for path, document in {
        "/apis": documents.GROUP_LIST,
        group: documents.GROUP,
        version: documents.RESOURCES,
        "/openapi/v2": documents.OPENAPI,
    }.items():
        app.router.add_get(path, _answer(document))
    path = f"{version}/namespaces/{{namespace}}/{VirtualMachine.plural}/{{name}}/console"
    app.router.add_get(path, server.open_console, allow_head=False)
    path = f"{version}/namespaces/{{namespace}}/{VirtualMachine.plural}/{{name}}/vnc"
    app.router.add_get(path, server.open_display, allow_head=False)
    path = f"{version}/namespaces/{{namespace}}/{VirtualMachine.plural}/{{name}}/portforward"
    app.router.add_get(path, server.open_forward, allow_head=False)
    if counters is not None:
        path = f"{version}/namespaces/{{namespace}}/{VirtualMachine.plural}/{{name}}/ports"
        app.router.add_get(path, CounterHandlers(cluster, counters).read, allow_head=False)
    if uploads is not None:
        images = UploadHandlers(cluster, uploads)
        path = f"{version}/namespaces/{{namespace}}/{VMImage.plural}/{{name}}/upload"
        app.router.add_get(path, images.state, allow_head=False)
        app.router.add_put(path, images.piece)
    app.on_shutdown.append(server.close)
    return app


class _Server:
    """The handlers, with what they share."""

    def __init__(self, cluster: Cluster, consoles: Consoles, front_proxy: Callable[[], FrontProxy]) -> None:
        self._cluster = cluster
        self._consoles = consoles
        self._front_proxy = front_proxy
        self._open: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._stopping = asyncio.Event()

    @web.middleware
    async def authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only the API server in, and note for whom it speaks."""
        peer = request.transport.get_extra_info("peercert") if request.transport else None
        try:
            request[USER] = identify(self._front_proxy(), peer, request.headers)
        except FrontProxyError as error:
            raise StatusError(401, "Unauthorized", str(error)) from error
        return await handler(request)

    async def open_console(self, request: web.Request) -> web.StreamResponse:
        """Serve one console session, from the check of the right to the last byte."""
        return await self._serve(request, CONSOLE)

    async def open_display(self, request: web.Request) -> web.StreamResponse:
        """Serve one session at a display, from the check of the right to the last byte."""
        return await self._serve(request, DISPLAY)

    async def open_forward(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection to a TCP port, from the check of the right to the last byte."""
        return await self._serve(request, FORWARD)

    async def _serve(self, request: web.Request, way: Way) -> web.StreamResponse:
        target = Target(request.match_info["namespace"], request.match_info["name"])
        user = request[USER]
        machine = await self._authorize(user, target, way)
        node = machine.labels.get(NODE_LABEL)
        if not node:
            raise StatusError(409, "Conflict", f"{target} is not on a node yet; `kubectl describe` says why.")
        query = _read_queries(request, way)
        viewer = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_FRAME_BYTES + 1, compress=False)
        if not viewer.can_prepare(request):
            raise StatusError(
                400,
                "BadRequest",
                f"A {way.called} is a WebSocket; open it with `kubectl vm {way.command or way.subresource}`.",
            )
        if self._open[way.subresource] >= MAX_SESSIONS:
            raise StatusError(429, "TooManyRequests", f"{MAX_SESSIONS} {way.called}s are open; close one.")
        session = Session(self._cluster, user, target, machine, self._stopping, way, query.get("port", ""))
        with self._count(way.subresource):
            try:
                async with self._connect(node, machine.uid, query, way) as remote:
                    await viewer.prepare(request)
                    await session.run(viewer, remote)
            except NodeError as error:
                raise _explain(target, way, error) from error
        return viewer

    def _connect(
        self, node: str, uid: str, query: Mapping[str, str], way: Way
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        if way is DISPLAY:
            return self._consoles.open_display(node, uid)
        if way is FORWARD:
            return self._consoles.open_forward(node, uid, query)
        return self._consoles.open_console(node, uid, query)

    @contextmanager
    def _count(self, subresource: str) -> Iterator[None]:
        self._open[subresource] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._open[subresource] -= 1
            if not self._open.total():
                self._idle.set()

    async def _authorize(self, user: User, target: Target, way: Way) -> ObjectMeta:
        refusal = await self._cluster.may_open(user, target, way.subresource)
        if refusal is not None:
            raise StatusError(
                403,
                "Forbidden",
                f'User "{user.name}" may not open the {way.called} of {target}: it needs the verb get on'
                f" virtualmachines/{way.subresource} in the API group {SUBRESOURCES_GROUP} ({refusal}).",
            )
        machine = await self._cluster.read_machine(target)
        if machine is None:
            raise StatusError(404, "NotFound", f"{target} does not exist.")
        return machine

    async def close(self, _: web.Application) -> None:
        """End every session; its client connects again to the next operator."""
        self._stopping.set()
        if self._open.total():
            await self._idle.wait()


@web.middleware
async def _tell_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every refusal with a Status object."""
    try:
        return await handler(request)
    except StatusError as error:
        refusal = error
    except KubeError as error:
        refusal = StatusError(503, "ServiceUnavailable", f"The API server does not answer the operator: {error}")
    except web.HTTPException as error:
        refusal = StatusError(error.status, error.reason.replace(" ", ""), f"{request.path} is not served here.")
    resource = VMImage.plural if request.path.endswith("/upload") else VirtualMachine.plural
    status = build_status(refusal, request.match_info.get("name", ""), resource)
    return web.json_response(status, status=refusal.code)


def _answer(document: documents.Document) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(document)

    return answer


def _read_queries(request: web.Request, way: Way) -> dict[str, str]:
    """Return what of the query is passed on to the node, for a way to the guest."""
    if way is CONSOLE:
        return _read_query(request)
    if way is not FORWARD:
        return {}
    try:
        return {"port": str(_PORT.validate_python(request.query.get("port")))}
    except ValidationError as error:
        raise StatusError(400, "BadRequest", "port must be a TCP port from 1 to 65535.") from error


def _read_query(request: web.Request) -> dict[str, str]:
    """Return what of the query is passed on to the node."""
    try:
        return {name: _QUERY[name].validate_python(value) for name, value in request.query.items() if name in _QUERY}
    except ValidationError as error:
        message = f"history is a number of bytes from 0 to {CONSOLE_HISTORY_BYTES}, follow is true or false."
        raise StatusError(400, "BadRequest", message) from error


def _explain(target: Target, way: Way, error: NodeError) -> StatusError:
    if isinstance(error, NodeRefusedError):
        if way is FORWARD:
            return StatusError(409, "Conflict", f"{target} cannot be connected to: {error}")
        return StatusError(409, "Conflict", f"{target} has no {way.called} now: {error}")
    return StatusError(503, "ServiceUnavailable", f"The node of {target} cannot be reached: {error}")
