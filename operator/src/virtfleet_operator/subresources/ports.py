"""What the aggregated API needs of its surroundings: the API server's answers and the consoles of the nodes."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from virtfleet_api.resource import ObjectMeta
from virtfleet_operator.subresources.front_proxy import FrontProxy, User


@dataclass(frozen=True)
class Target:
    """A VirtualMachine that somebody wants to reach."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Write it as people do: VirtualMachine shop/web-1."""
        return f"VirtualMachine {self.namespace}/{self.name}"


class Cluster(Protocol):
    """What is asked of the API server, each time anew. Every method raises KubeError when there is no answer."""

    async def read_front_proxy(self) -> FrontProxy:
        """Read how the API server proves itself."""

    async def may_open_console(self, user: User, target: Target) -> str | None:
        """Return None if the user has the right, else the reason why not."""

    async def read_machine(self, target: Target) -> ObjectMeta | None:
        """Return the metadata of the machine, or None if there is none."""


class Consoles(Protocol):
    """The serial consoles of machines, at their nodes."""

    def open_console(
        self, node: str, uid: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to the console; NodeError says why it cannot be had."""
