"""The aggregated API behind a real API server, for the tests of consoles.

The node is a stand-in at our own port, the node's console endpoint: it echoes, floods, closes or refuses.
"""

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web

from virtfleet_api.names import NODE_LABEL
from virtfleet_api.node_api import Problem
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_dev.pki import LocalAuthority, Pair
from virtfleet_operator.fleet.client import Dialer
from virtfleet_operator.fleet.console import open_console
from virtfleet_operator.fleet.errors import NodeUnavailableError
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import Connection, read_connection
from virtfleet_operator.subresources import session
from virtfleet_operator.subresources.cluster import KubeCluster
from virtfleet_operator.subresources.server import KeyPair, SubresourceServer

GROUP = "/apis/subresources.virtfleet.io/v1alpha1"
NODE = "node-a"
DEADLINE_SECONDS = 20.0


class Node:
    """The console endpoint of a node; `behave` is what it does with a connection."""

    def __init__(self) -> None:
        self.behave: Callable[[web.WebSocketResponse], Awaitable[None]] = self.echo
        self.refusal: Problem | None = None
        self.queries: list[dict[str, str]] = []
        self.sent = 0
        self.echoing = 0
        self.typed = b""
        self.log = b""
        self.open: web.WebSocketResponse | None = None
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        if self.refusal:
            return web.json_response(self.refusal.to_json_dict(), status=409)
        console = web.WebSocketResponse()
        await console.prepare(request)
        if request.query.get("follow") == "false":
            await console.send_bytes(self.log[-int(request.query["history"]) :])
            await console.close()
            return console
        self.open = console
        await self.behave(console)
        return console

    def cut(self) -> None:
        """Lose the connection that was opened last."""
        assert self.open is not None
        assert self.open._req is not None
        assert self.open._req.transport is not None
        self.open._req.transport.abort()

    async def echo(self, console: web.WebSocketResponse) -> None:
        self.echoing += 1
        async for message in console:
            if message.type is WSMsgType.BINARY:
                self.typed += message.data
                self.log += message.data
                await console.send_bytes(message.data)
        self.echoing -= 1

    @staticmethod
    async def say_and_close(console: web.WebSocketResponse) -> None:
        await console.send_bytes(b"login: ")
        await console.close()

    @staticmethod
    async def drop(console: web.WebSocketResponse) -> None:
        await console.send_bytes(b"x")
        assert console._req is not None
        assert console._req.transport is not None
        console._req.transport.abort()

    async def flood(self, console: web.WebSocketResponse) -> None:
        filling = asyncio.create_task(self._fill(console))
        async for _ in console:
            pass
        filling.cancel()

    async def _fill(self, console: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await console.send_bytes(bytes(65536))
                self.sent += 65536
                await asyncio.sleep(0)


class NodeConsoles:
    """The fleet's client, towards the one node."""

    def __init__(self, dialer: Dialer, node: Node) -> None:
        self._dialer = dialer
        self._node = node

    def open_console(
        self, node: str, uid: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        return self._open(node, uid, query, "console")

    def open_display(self, node: str, uid: str) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        return self._open(node, uid, {}, "vnc")

    def open_forward(
        self, node: str, uid: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        return self._open(node, uid, query, "portforward")

    def _open(
        self, node: str, uid: str, query: Mapping[str, str], what: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        if node != NODE:
            raise NodeUnavailableError(f"{node} has no address")
        return open_console(self._dialer, node, f"127.0.0.1:{self._node.port}", uid, query, what)


@dataclass
class Lab:
    """Everything a test speaks to."""

    plane: ControlPlane
    node: Node
    folder: Path
    port: int
    front_proxy: LocalAuthority
    serving_ca: Path
    users: dict[str, Connection] = field(default_factory=dict)
    subresource: str = "console"
    """What is opened."""

    async def user(self, name: str, group: str | None = None) -> Connection:
        if name not in self.users:
            path = self.plane.write_kubeconfig(self.folder / name, name, group)
            self.users[name] = await read_connection(path)
        return self.users[name]

    def path(self, machine: str, query: str = "") -> str:
        return f"{GROUP}/namespaces/default/virtualmachines/{machine}/{self.subresource}{query}"

    @asynccontextmanager
    async def console(self, user: str, machine: str, query: str = "", **headers: str) -> AsyncIterator[Any]:
        connection = await self.user(user)
        async with (
            connection.open_session() as client,
            client.ws_connect(connection.server + self.path(machine, query), headers=headers) as console,
        ):
            yield console

    async def refusal(self, user: str, machine: str, query: str = "", **headers: str) -> dict[str, Any]:
        """Return the Status that an upgrade is answered with."""
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        connection = await self.user(user)
        async with (
            connection.open_session() as client,
            client.get(connection.server + self.path(machine, query), headers=upgrade | headers) as response,
        ):
            status: dict[str, Any] = await response.json()
            assert (status["kind"], status["code"]) == ("Status", response.status)
            return status

    async def direct(self, pair: Pair | None, machine: str, **headers: str) -> tuple[int, dict[str, Any]]:
        """Call the operator past the API server."""
        tls = ssl.create_default_context(cafile=self.serving_ca)
        if pair:
            tls.load_cert_chain(pair.certificate, pair.key)
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"https://localhost:{self.port}{self.path(machine)}", ssl=tls, headers=headers) as response,
        ):
            return response.status, await response.json()

    async def make_machine(self, name: str, node: str | None = NODE) -> None:
        labels = {NODE_LABEL: node} if node else {}
        body = {
            "apiVersion": "virtfleet.io/v1alpha1",
            "kind": "VirtualMachine",
            "metadata": {"name": name, "labels": labels},
            "spec": {},
        }
        await asyncio.to_thread(self.plane.kubectl.apply, body)

    async def grant(self, user: str, role: str = "console-users") -> None:
        """Give a user the right to consoles, or another."""
        await asyncio.to_thread(self.plane.kubectl.apply, binding(user, role))

    async def kubectl(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.plane.kubectl.run, *arguments)

    @staticmethod
    async def closing(console: Any) -> tuple[int, str]:
        """Read a console to its end: close code and reason."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (message := await console.receive()).type is WSMsgType.BINARY:
                pass
        return console.close_code, message.extra

    @staticmethod
    async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await holds():  # what is waited for is in other processes
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Node, Dialer]]:
    ca = LocalAuthority(tmp_path_factory.mktemp("fleet"), "fleet-ca")
    pair = ca.issue(NODE, NODE, server_names=[NODE])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.certificate, pair.key)
    stand_in = Node()
    app = web.Application()
    app.router.add_get("/v1/machines/{uid}/console", stand_in.answer)
    app.router.add_get("/v1/machines/{uid}/vnc", stand_in.answer)
    app.router.add_get("/v1/machines/{uid}/portforward", stand_in.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    stand_in.port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as client:
        yield stand_in, Dialer(client, lambda: ssl.create_default_context(cafile=ca.pair.certificate), epoch=1)
    await runner.cleanup()


@asynccontextmanager
async def serve(
    plane: ControlPlane, consoles: NodeConsoles, listener: socket.socket, pair: KeyPair
) -> AsyncIterator[None]:
    kubeconfig = plane.write_kubeconfig(plane.directory / "pki" / "operator.kubeconfig", "virtfleet-operator", None)
    async with KubeClient(await read_connection(kubeconfig)) as client:
        server = SubresourceServer(listener, KubeCluster(client), consoles, lambda: pair)
        task = asyncio.create_task(server.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass
class Parts:
    """What a second operator needs to take over."""

    lab: Lab
    consoles: NodeConsoles
    listener: socket.socket
    pair: KeyPair

    def serve(self, listener: socket.socket) -> AbstractAsyncContextManager[None]:
        return serve(self.lab.plane, self.consoles, listener, self.pair)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts(
    control_plane: ControlPlane, node: tuple[Node, Dialer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Parts]:
    folder = tmp_path_factory.mktemp("subresources")
    ca = LocalAuthority(folder, "serving-ca")
    names = ["virtfleet-console.default.svc", "localhost"]
    pair = ca.issue("serving", "virtfleet-console", server_names=names)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lab = Lab(
            plane=control_plane,
            node=node[0],
            folder=folder,
            port=listener.getsockname()[1],
            front_proxy=LocalAuthority(control_plane.directory / "pki", "front-proxy-ca"),
            serving_ca=ca.pair.certificate,
        )
        await lab.user("admin", "system:masters")
        material = KeyPair(pair.certificate.read_bytes(), pair.key.read_bytes())
        yield Parts(lab, NodeConsoles(node[1], node[0]), listener, material)
        await lab.kubectl("delete", "apiservice", "v1alpha1.subresources.virtfleet.io", "--ignore-not-found")
        await lab.kubectl("delete", "vm", "--all", "--wait=false")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(parts: Parts) -> AsyncIterator[Lab]:
    async with parts.serve(parts.listener):
        await register(parts.lab)
        await parts.lab.make_machine("web")
        yield parts.lab


async def register(lab: Lab) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "virtfleet-console"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": lab.port}]},
    }
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1alpha1.subresources.virtfleet.io"},
        "spec": {
            "group": "subresources.virtfleet.io",
            "version": "v1alpha1",
            "groupPriorityMinimum": 1000,
            "versionPriority": 10,
            "caBundle": base64.b64encode(lab.serving_ca.read_bytes()).decode(),
            "service": {"name": "virtfleet-console", "namespace": "default", "port": lab.port},
        },
    }
    roles = [
        rule("console-users", ["subresources.virtfleet.io"], ["virtualmachines/console"]),
        rule("display-users", ["subresources.virtfleet.io"], ["virtualmachines/vnc"]),
        rule("forward-users", ["subresources.virtfleet.io"], ["virtualmachines/portforward"]),
        rule("vm-viewers", ["virtfleet.io"], ["virtualmachines"]),
        binding("vera", "vm-viewers"),
        binding("carl", "console-users"),
        binding("rosa", "console-users"),
        binding("dora", "display-users"),
        binding("fred", "forward-users"),
    ]
    await asyncio.to_thread(lab.plane.kubectl.apply, service, api, *roles)
    await lab.kubectl("wait", "--for=condition=Available", "apiservice/v1alpha1.subresources.virtfleet.io")
    for name in ("vera", "carl", "rosa", "dora", "fred"):
        await lab.user(name)
    await lab.eventually(lambda: knows_group(lab))


def rule(name: str, groups: list[str], resources: list[str]) -> dict[str, Any]:
    rules = [{"apiGroups": groups, "resources": resources, "verbs": ["get", "list", "watch"]}]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


def binding(user: str, role: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }


async def knows_group(lab: Lab) -> bool:
    done = await asyncio.to_thread(lab.plane.kubectl.attempt, "get", "--raw", GROUP)
    return done.returncode == 0


@pytest.fixture(autouse=True)
def calm(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.node.behave, lab.node.refusal, lab.node.sent, lab.node.log = lab.node.echo, None, 0, b""
    lab.subresource = "console"
    monkeypatch.setattr(session, "CHECK_SECONDS", 0.2)
