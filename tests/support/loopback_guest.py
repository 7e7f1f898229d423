"""A guest whose TCP ports are this computer's, for tests of the node's interface without a guest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from identities import UID
from virtfleet_node.core.errors import ConflictError, NotFoundError


@dataclass
class GuestPorts:
    """The guest's ports by what they are in the guest; a forwarder of the server's."""

    ports: dict[int, int] = field(default_factory=dict)
    open: int = 0

    @asynccontextmanager
    async def open_forward(
        self, uid: str, port: int
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        if uid != UID:
            raise NotFoundError(f"There is no machine {uid}.")
        if port not in self.ports:
            raise ConflictError("The guest refuses connections.")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[port])
        self.open += 1
        try:
            yield reader, writer
        finally:
            self.open -= 1
            writer.transport.abort()
