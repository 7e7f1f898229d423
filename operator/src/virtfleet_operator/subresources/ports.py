"""What the aggregated API needs of its surroundings: the API server's answers, and what nodes do for users."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
from aiohttp import web

from virtfleet_api.image import ImageReport, PieceQuery, UploadState
from virtfleet_api.node_api import InterfaceList
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.subresources.front_proxy import FrontProxy, User

USER: Final = web.RequestKey("user", User)
"""For whom the API server speaks."""


@dataclass(frozen=True)
class Target:
    """A VirtualMachine that somebody wants to reach, or an object of another kind."""

    namespace: str
    name: str
    kind: str = "VirtualMachine"

    def __str__(self) -> str:
        """Write it as people do: VirtualMachine shop/web-1."""
        return f"{self.kind} {self.namespace}/{self.name}"


class Cluster(Protocol):
    """What is asked of the API server, each time anew. Every method raises KubeError when there is no answer."""

    async def read_front_proxy(self) -> FrontProxy:
        """Read how the API server proves itself."""

    async def may_open(self, user: User, target: Target, subresource: str) -> str | None:
        """Return None if the user may open a machine's `console`, `vnc` or `portforward`, else the reason why not."""

    async def may_read_ports(self, user: User, target: Target) -> str | None:
        """Return None if the user may see what has passed a machine's cards, else the reason why not."""

    async def read_machine(self, target: Target) -> ObjectMeta | None:
        """Return the metadata of the machine, or None if there is none."""

    async def may_upload(self, user: User, target: Target, verb: str) -> str | None:
        """Return None if the user has the right to this verb on the image's upload, else the reason why not."""

    async def read_image(self, target: Target) -> VMImage | None:
        """Return the image, or None if there is none that can be read."""


class Consoles(Protocol):
    """The serial consoles, displays and TCP ports of machines, at their nodes."""

    def open_console(
        self, node: str, uid: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to the console; NodeError says why it cannot be had."""

    def open_display(self, node: str, uid: str) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to the display; NodeError says why it cannot be had."""

    def open_forward(
        self, node: str, uid: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to the TCP port that the query names; NodeError says why it cannot be had."""


class Counters(Protocol):
    """What has passed the network cards of machines, at their nodes."""

    async def list_interfaces(self, node: str, uid: str) -> InterfaceList:
        """Ask a node; NodeError says why it cannot be had."""


class Uploads(Protocol):
    """The uploads of images, at the nodes that take them. NodeError says why something cannot be done."""

    def uploading(self, uid: str) -> Mapping[str, ImageReport]:
        """Return what the nodes that are heard say of an image, by name."""

    async def upload_state(self, node: str, uid: str) -> UploadState:
        """Ask a node how much is there."""

    async def send_piece(self, node: str, uid: str, piece: PieceQuery, body: AsyncIterator[bytes]) -> UploadState:
        """Pass on a piece."""
