"""Requests to one node's daemon: mutual TLS, the leader's epoch, and a bound on time, size and concurrency of each.

It keeps no state of the node; see `state` for that.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
from pydantic import ValidationError

from virtfleet_api.base import Document
from virtfleet_api.image import Image, ImageReport, PieceQuery, UploadState
from virtfleet_api.machine import Machine
from virtfleet_api.node_api import (
    EPOCH_HEADER,
    MAX_DOCUMENT_BYTES,
    WATCH_EVENT,
    InterfaceList,
    PoolList,
    Problem,
    ProblemReason,
    WatchEvent,
)
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import PoolSet
from virtfleet_api.report import MachineReport, NetworkReport
from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_operator.fleet.errors import (
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeUnavailableError,
    StaleEpochError,
)
from virtfleet_operator.fleet.lines import read_lines

D = TypeVar("D", bound=Document)

REQUEST_TIMEOUT_SECONDS: Final = 20.0
"""A daemon answers when it has stored the document, not when the guest runs: seconds even on a busy host."""

CONNECT_TIMEOUT_SECONDS: Final = 5.0
"""Longer than two retransmitted SYNs (1 s and 3 s)."""

PIECE_TIMEOUT_SECONDS: Final = 120.0
"""An API server gives a request 60 s; who calls the operator past it is nobody that it serves."""

REQUESTS_PER_NODE: Final = 8
"""Instructions under way at once; a daemon works them off one machine at a time anyway."""

SNAPSHOT_LIMIT_BYTES: Final = 64 << 20
"""10,000 machines with 4 KiB each, and some air."""


@dataclass(frozen=True)
class Dialer:
    """What all clients of the fleet share."""

    session: aiohttp.ClientSession
    tls: Callable[[], ssl.SSLContext]
    """The operator's current certificate; asked for each connection, since it is renewed daily."""
    epoch: int


class NodeClient:
    """A client of one daemon."""

    def __init__(self, dialer: Dialer, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._dialer = dialer
        self._slots = asyncio.Semaphore(REQUESTS_PER_NODE)

    async def put_machine(self, machine: Machine) -> MachineReport:
        """Instruct the node about one machine."""
        return await self._instruct("PUT", f"/v1/machines/{machine.uid}", machine, MachineReport)

    async def put_image(self, image: Image) -> ImageReport:
        """Instruct the node about one image."""
        return await self._instruct("PUT", f"/v1/images/{image.uid}", image, ImageReport)

    async def put_snapshot(self, snapshot: MachineSnapshot) -> SnapshotReport:
        """Instruct the node about one snapshot of a machine."""
        return await self._instruct("PUT", f"/v1/snapshots/{snapshot.uid}", snapshot, SnapshotReport)

    async def put_pools(self, pools: PoolSet) -> PoolList:
        """Instruct the node about its pools."""
        return await self._instruct("PUT", "/v1/pools", pools, PoolList)

    async def put_network(self, network: NodeNetwork) -> NetworkReport:
        """Instruct the node about its physical networks and peers."""
        return await self._instruct("PUT", "/v1/network", network, NetworkReport)

    async def delete_machine(self, uid: str) -> MachineReport:
        """Have the node remove a machine by the document it has stored itself."""
        return await self._instruct("DELETE", f"/v1/machines/{uid}", None, MachineReport)

    async def list_interfaces(self, uid: str) -> InterfaceList:
        """Ask what has passed a machine's network cards."""
        return await self._instruct("GET", f"/v1/machines/{uid}/interfaces", None, InterfaceList)

    async def upload_state(self, uid: str) -> UploadState:
        """Ask how much of an image's upload is there."""
        return await self._instruct("GET", f"/v1/images/{uid}/upload", None, UploadState)

    async def send_piece(self, uid: str, piece: PieceQuery, body: AsyncIterator[bytes]) -> UploadState:
        """Pass on a piece of an upload as it comes; what of it arrived before a failure is kept by the node."""
        timeout = aiohttp.ClientTimeout(total=PIECE_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
        query = {name: str(value) for name, value in piece.to_json_dict().items()}
        path = f"/v1/images/{uid}/upload"
        try:
            async with self._open("PUT", path, timeout, query=query, body=body) as response:
                await self._check(response)
                return UploadState.model_validate_json(await self._read(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        except ValidationError as error:
            raise NodeProtocolError(f"The answer of {self.name} to a piece is not valid: {error!s:.300}") from None

    async def watch(self, cursor: str | None, silence_seconds: float) -> AsyncIterator[WatchEvent]:
        """Yield what the node observes, until the stream ends or is silent for too long."""
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_SECONDS)
        query = {"cursor": cursor} if cursor else None
        try:
            async with self._open("GET", "/v1/watch", timeout, query=query) as response:
                await self._check(response)
                lines = read_lines(response.content.iter_any(), SNAPSHOT_LIMIT_BYTES)
                while True:
                    async with asyncio.timeout(silence_seconds):
                        line = await anext(lines, None)
                    if line is None:
                        return
                    yield WATCH_EVENT.validate_json(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        except ValidationError as error:
            raise NodeProtocolError(f"A line of the watch stream of {self.name} is not valid: {error!s:.300}") from None

    async def _instruct(self, method: str, path: str, document: Document | None, answer: type[D]) -> D:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
        try:
            async with self._slots, self._open(method, path, timeout, document=document) as response:
                await self._check(response)
                return answer.model_validate_json(await self._read(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        except ValidationError as error:
            raise NodeProtocolError(f"The answer of {self.name} to {method} is not valid: {error!s:.300}") from None

    def _open(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,
        *,
        query: dict[str, str] | None = None,
        document: Document | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> "aiohttp.client._RequestContextManager":
        return self._dialer.session.request(
            method,
            f"https://{self.address}{path}",
            params=query,
            data=document.model_dump_json(exclude_none=True) if document else body,
            headers={"Content-Type": "application/json", EPOCH_HEADER: str(self._dialer.epoch)},
            ssl=self._dialer.tls(),
            server_hostname=self.name,
            timeout=timeout,
            allow_redirects=False,  # a node must not be able to send the operator elsewhere
        )

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:  # noqa: PLR2004 -- every success of the interface is a 200
            raise build_error(self.name, response.status, await self._read(response))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        content = b""
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > MAX_DOCUMENT_BYTES:
                raise NodeProtocolError(f"{self.name} answers more than {MAX_DOCUMENT_BYTES} bytes.")
        return content

    def _unavailable(self, error: Exception) -> NodeUnavailableError:
        return NodeUnavailableError(f"{self.name} at {self.address}: {type(error).__name__}: {error!s:.200}")


def build_error(node: str, status: int, content: bytes) -> NodeError:
    """Return the error for a refusal."""
    try:
        problem = Problem.model_validate_json(content)
    except ValidationError:
        return NodeProtocolError(f"{node} answers {status} without saying why.")
    message = f"{node} refuses: {problem.message[:1000]}"
    if problem.reason == ProblemReason.STALE_EPOCH:
        return StaleEpochError(message)
    if problem.reason == ProblemReason.UNAVAILABLE:
        return NodeUnavailableError(message)
    return NodeRefusedError(problem.reason, message)
