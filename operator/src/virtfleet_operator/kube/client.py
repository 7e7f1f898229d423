"""Requests to the API server: JSON in, JSON out, each with a time bound and our own errors.

It knows no kind and decides nothing. Bodies stay plain dictionaries: what the operator does not know in an object
must survive being read and written.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Self

import aiohttp

from virtfleet_operator.kube.connection import Connection
from virtfleet_operator.kube.errors import UnavailableError, build_error

Body = dict[str, Any]

REQUEST_TIMEOUT_SECONDS: Final = 30.0
"""Longer than the API server's own 10 s for a webhook and etcd's 5 s for an election, shorter than a minute."""

LIST_CHUNK: Final = 500
"""Objects a request: client-go's page size."""

WATCH_SECONDS: Final = 300
"""How long the API server keeps one watch open."""

SILENCE_SECONDS: Final = 150
"""A watch gets a bookmark each minute: one that is silent for longer is dead."""

MERGE_PATCH: Final = "application/merge-patch+json"


Answered = Callable[[str, str], None]
"""Is told of each request that has ended: its method, and the HTTP status, or "error" when there was no answer."""


def _tell_nobody(_method: str, _status: str) -> None:
    """Count nothing."""


class KubeClient:
    """A client of the API server."""

    def __init__(self, connection: Connection, answered: Answered = _tell_nobody) -> None:
        self._answered = answered
        self._server = connection.server
        self._tls_name = connection.configuration.tls_server_name
        self._session = connection.open_session()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Body:
        """Read one object, or one page of a list."""
        return await self._request("GET", path, query=query)

    async def create(self, path: str, body: Body) -> Body:
        """Create an object in the collection at the path."""
        return await self._request("POST", path, body=body)

    async def replace(self, path: str, body: Body) -> Body:
        """Replace an object; its resourceVersion makes the write conditional."""
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: Body) -> Body:
        """Apply a JSON merge patch (RFC 7386) and return the whole object."""
        return await self._request("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def delete(self, path: str, *, version: str | None = None) -> None:
        """Delete an object; with a resourceVersion only if it is still that one."""
        body = {"preconditions": {"resourceVersion": version}} if version else None
        await self._request("DELETE", path, body=body)

    async def list_pages(
        self, path: str, *, metadata_only: bool = False, selector: str | None = None
    ) -> AsyncIterator[Body]:
        """Yield a collection page by page, each a list object; all pages are of one moment.

        `selector` is a label selector, by which the API server leaves others out.
        """
        query = {"limit": str(LIST_CHUNK), **({"labelSelector": selector} if selector else {})}
        while True:
            page = await self._request("GET", path, query=query, metadata_only=metadata_only)
            page["items"] = page["items"] or []  # an empty list of metadata comes as null
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def watch(self, path: str, version: str, selector: str) -> AsyncIterator[Body]:
        """Yield the events of a collection after a resourceVersion, until the API server ends the watch.

        Bookmarks are among them. `selector` is a label selector.

        Raises:
            NotFoundError: the version is too old: list again.
            KubeError: the API server did not answer, or the connection broke.
        """
        query = {
            "watch": "true",
            "resourceVersion": version,
            "labelSelector": selector,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        what = f"WATCH {path}"
        limit = aiohttp.ClientTimeout(total=WATCH_SECONDS + 10, sock_read=SILENCE_SECONDS)
        try:
            async with self._session.get(
                self._server + path, params=query, timeout=limit, server_hostname=self._tls_name
            ) as response:
                self._answered("WATCH", str(response.status))
                if response.status != 200:  # noqa: PLR2004 -- HTTP: OK
                    raise build_error(response.status, what, await response.read())
                async for line in response.content:
                    event: Body = json.loads(line)
                    if event["type"] == "ERROR":
                        raise build_error(
                            int(event["object"].get("code", 500)), what, json.dumps(event["object"]).encode()
                        )
                    yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._answered("WATCH", "error")
            raise UnavailableError(f"{what}: {type(error).__name__}: {error}") from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
        metadata_only: bool = False,
    ) -> Body:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        if metadata_only:
            headers["Accept"] = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        what = f"{method} {path}"
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_SECONDS),
                self._session.request(
                    method,
                    self._server + path,
                    params=query,
                    headers=headers,
                    data=None if body is None else json.dumps(body),
                    server_hostname=self._tls_name,
                ) as response,
            ):
                content = await response.read()
                self._answered(method, str(response.status))
                return self._read(what, response.status, content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._answered(method, "error")
            raise UnavailableError(f"{what}: {type(error).__name__}: {error}") from error

    @staticmethod
    def _read(what: str, status: int, content: bytes) -> Body:
        if status >= 400:  # noqa: PLR2004 -- HTTP: from here on it is an error
            raise build_error(status, what, content)
        body: Body = json.loads(content)
        return body
