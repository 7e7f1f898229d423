"""Look at the traffic of network cards now and then, for metrics."""

import asyncio
import contextlib
from typing import Final

from virtfleet_api.node_api import InterfaceList
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.traffic import CardFigure, build_traffic

EVERY_SECONDS: Final = 10.0
"""One call of libvirt's; a card takes it some 0.1 ms."""


class TrafficWatch:
    """Keeps the figures of cards current."""

    def __init__(self, around: Surroundings, entries: dict[str, Entry]) -> None:
        self._around = around
        self._entries = entries
        self.figures: tuple[CardFigure, ...] = ()
        """As last seen; replaced as a whole, so that another thread may read it."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            with contextlib.suppress(NodeError):  # libvirtd is away: what was last seen is told
                await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Look once."""
        counted = await self._around.hypervisor.read_traffic()
        self.figures = tuple(
            CardFigure(entry.desired.namespace, entry.desired.name, entry.cards[device], traffic)
            for uid, entry in self._entries.items()
            for device, traffic in counted.get(uid, {}).items()
            if device in entry.cards
        )

    async def list_interfaces(self, uid: str) -> InterfaceList:
        """Return the network cards of a machine with their traffic, as they are now."""
        counted = await self._around.hypervisor.read_traffic()
        return InterfaceList(items=build_traffic(await self._around.hypervisor.read(uid), counted.get(uid, {})))
