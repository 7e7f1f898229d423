"""The cluster of the user: kubeconfig and context as kubectl takes them, and requests with the user's credentials."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_kube_config

from virtfleet_api.image import PieceQuery, UploadState
from virtfleet_api.names import API_VERSION, SUBRESOURCES_API_VERSION
from virtfleet_api.node_api import InterfaceList
from virtfleet_api.resource import Resource
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import VMImage
from virtfleet_cli.errors import CliError, UnavailableError, explain

FIELD_MANAGER: Final = "kubectl-vm"

REQUEST_TIMEOUT_SECONDS: Final = 30.0
"""kubectl has none; a person gives up earlier than a minute."""

MAX_FRAME_BYTES: Final = 65536
"""Largest frame of a console; aiohttp's limit is the first size that is too large."""

HEARTBEAT_SECONDS: Final = 20.0
"""Notices a lost connection within half a minute, also when the guest is silent."""

EVENTS_SHOWN: Final = 20

_CONTENT_TYPES: Final = {"PATCH": "application/merge-patch+json", "POST": "application/json"}


@dataclass(frozen=True)
class Choice:
    """What the user chose on the command line; None is what the kubeconfig says."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


class Cluster:
    """Requests to the API server about the machines of one namespace."""

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        self.namespace = namespace
        self._configuration = configuration
        self._tls = RESTClientObject(configuration).ssl_context
        self._session = self._open_session()

    @classmethod
    async def connect(cls, choice: Choice) -> Self:
        """Read the kubeconfig; CliError says what is wrong with it."""
        configuration = Configuration()
        try:
            loader = await load_kube_config(  # type: ignore[no-untyped-call]  # the client has no types here
                _find_kubeconfig(choice),
                context=choice.context,
                client_configuration=configuration,
                persist_config=False,
            )
        except CliError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise CliError(
                f"No usable kubeconfig ({reason}); set KUBECONFIG or --kubeconfig, and --context."
            ) from error
        context = loader.current_context["context"]
        return cls(configuration, choice.namespace or context.get("namespace") or "default")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get_machine(self, name: str) -> dict[str, Any]:
        """Read a VirtualMachine."""
        return await self._request("GET", self._path(API_VERSION, name), self._what(name))

    async def list_machines(self) -> list[dict[str, Any]]:
        """Read every VirtualMachine of the namespace."""
        path = self._collection(API_VERSION, VirtualMachine.plural)
        return list((await self._request("GET", path, "VirtualMachines")).get("items") or ())

    async def list_interfaces(self, name: str) -> InterfaceList:
        """Ask what has passed a machine's network cards."""
        path = f"{self._path(SUBRESOURCES_API_VERSION, name)}/ports"
        return InterfaceList.model_validate(await self._request("GET", path, self._what(name)))

    async def patch_machine(self, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Change a VirtualMachine by a JSON merge patch and return what it became."""
        return await self._request("PATCH", self._path(API_VERSION, name), self._what(name), body=patch)

    async def create_machine(self, manifest: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Create a VirtualMachine and return it; with `dry_run` the API server does all but keep it."""
        path = self._collection(API_VERSION, VirtualMachine.plural)
        query = {"dryRun": "All"} if dry_run else {}
        return await self._request("POST", path, self._what(manifest["metadata"]["name"]), query=query, body=manifest)

    async def get_object(self, kind: type[Resource], name: str) -> dict[str, Any]:
        """Read an object of a kind."""
        path = self._path(API_VERSION, name, kind.plural)
        return await self._request("GET", path, f"{kind.__name__} {self.namespace}/{name}")

    async def list_objects(self, kind: type[Resource]) -> list[dict[str, Any]]:
        """Read every object of a kind in the namespace."""
        path = self._collection(API_VERSION, kind.plural)
        return list((await self._request("GET", path, f"{kind.__name__}s")).get("items") or ())

    async def create_object(self, kind: type[Resource], manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object and return it, with the name that `generateName` became."""
        metadata = manifest["metadata"]
        what = f"{kind.__name__} {self.namespace}/{metadata.get('name') or metadata['generateName']}"
        return await self._request("POST", self._collection(API_VERSION, kind.plural), what, body=manifest)

    async def find_image(self, name: str) -> dict[str, Any] | None:
        """Read a VMImage; None when there is none of that name."""
        path = self._collection(API_VERSION, VMImage.plural)
        query = {"fieldSelector": f"metadata.name={name}"}
        items = (await self._request("GET", path, self._image(name), query=query)).get("items")
        return items[0] if items else None

    async def create_image(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Create a VMImage."""
        body = {"apiVersion": API_VERSION, "kind": "VMImage", "metadata": {"name": name}, "spec": spec}
        path = self._collection(API_VERSION, VMImage.plural)
        return await self._request("POST", path, self._image(name), body=body)

    async def upload_state(self, name: str) -> UploadState:
        """Ask how much of an image's upload is there."""
        return UploadState.model_validate(await self._request("GET", self._upload_path(name), self._image(name)))

    async def send_piece(self, name: str, piece: PieceQuery, data: bytes) -> UploadState:
        """Send a piece of an image's upload."""
        query = {key: str(value) for key, value in piece.to_json_dict().items()}
        answer = await self._request("PUT", self._upload_path(name), self._image(name), query=query, data=data)
        return UploadState.model_validate(answer)

    async def list_events(self, uid: str) -> list[dict[str, Any]]:
        """Return the latest events about an object, oldest first; none without the right to read events."""
        path = f"/api/v1/namespaces/{quote(self.namespace, safe='')}/events"
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": "500"}
        try:
            items = (await self._request("GET", path, "Event", query=query))["items"]
        except UnavailableError:
            raise
        except CliError:
            return []
        items.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return list(items[-EVENTS_SHOWN:])

    def open_console(
        self, name: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to the serial console of a machine for as long as the context lasts."""
        return self._open_socket(name, "console", query)

    def open_display(self, name: str) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to the display of a machine for as long as the context lasts."""
        return self._open_socket(name, "vnc", {})

    def open_forward(self, name: str, port: int) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to a TCP port of a machine's guest for as long as the context lasts."""
        return self._open_socket(name, "portforward", {"port": str(port)})

    async def check_forward(self, name: str, port: int) -> None:
        """Say what stands against connections to a machine before there is any; CliError."""
        path = f"{self._path(SUBRESOURCES_API_VERSION, name)}/portforward"
        try:
            await self._request("GET", path, self._what(name), query={"port": str(port)})
        except CliError as error:
            if error.status != 400:  # noqa: PLR2004 -- HTTP: it is no WebSocket, which is all that was wrong
                raise

    @asynccontextmanager
    async def _open_socket(
        self, name: str, subresource: str, query: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async def read_refusal(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            response = await handler(request)
            if response.status != 101:  # noqa: PLR2004 -- HTTP: switching protocols, the only success of an upgrade
                raise explain(response.status, await response.content.read(1 << 16), self._what(name))
            return response

        url = self._url(f"{self._path(SUBRESOURCES_API_VERSION, name)}/{subresource}")
        async with self._open_session(read_refusal) as session:
            try:
                socket = await session.ws_connect(
                    url,
                    params=dict(query),
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=MAX_FRAME_BYTES + 1,
                    server_hostname=self._configuration.tls_server_name,
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(error) from error
            async with socket:
                yield socket

    async def _request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        data: bytes | None = None,
    ) -> dict[str, Any]:
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_SECONDS),
                self._session.request(
                    method,
                    self._url(path),
                    params={**(query or {}), **({"fieldManager": FIELD_MANAGER} if body else {})},
                    data=data if body is None else json.dumps(body),
                    headers={"Content-Type": _CONTENT_TYPES[method]} if body else None,
                    server_hostname=self._configuration.tls_server_name,
                ) as response,
            ):
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status >= 400:  # noqa: PLR2004 -- HTTP: from here on it is an error
            raise explain(response.status, answer, what)
        document: dict[str, Any] = json.loads(answer)
        return document

    def _open_session(self, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls),
            headers={"User-Agent": FIELD_MANAGER, "Accept": "application/json"},
            middlewares=(self._authenticate, *middlewares),
            proxy=self._configuration.proxy,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_SECONDS),
        )

    async def _authenticate(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        settings = await self._configuration.auth_settings()
        if bearer := settings.get("BearerToken"):
            request.headers[str(bearer["key"])] = str(bearer["value"])
        return await handler(request)

    def _path(self, api_version: str, name: str, plural: str = VirtualMachine.plural) -> str:
        return f"{self._collection(api_version, plural)}/{quote(name, safe='')}"

    def _collection(self, api_version: str, plural: str) -> str:
        return f"/apis/{api_version}/namespaces/{quote(self.namespace, safe='')}/{plural}"

    def _upload_path(self, image: str) -> str:
        return self._path(SUBRESOURCES_API_VERSION, image, VMImage.plural) + "/upload"

    def _url(self, path: str) -> str:
        return str(self._configuration.host).rstrip("/") + path

    def _what(self, name: str) -> str:
        return f"VirtualMachine {self.namespace}/{name}"

    def _image(self, name: str) -> str:
        return f"VMImage {self.namespace}/{name}"

    def _unreachable(self, error: Exception) -> UnavailableError:
        detail = str(error) or type(error).__name__
        return UnavailableError(f"The API server {self._configuration.host} cannot be reached: {detail}.")


def _find_kubeconfig(choice: Choice) -> str:
    """Return the path, or the list of paths, that kubectl would read."""
    paths = choice.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(Path(path).is_file() for path in paths.split(os.pathsep)):
        raise CliError(f"There is no kubeconfig at {paths}; set KUBECONFIG or --kubeconfig.")
    return paths
