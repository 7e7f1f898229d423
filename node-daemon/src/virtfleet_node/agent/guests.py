"""Ask guest agents for addresses and names: when an agent comes up, a few times soon after, and then seldom.

An address comes by DHCP some seconds after the agent, and no event tells of it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.guest_facts import GuestFacts

FIRST_SECONDS: Final = (0.0, 1.0, 3.0, 8.0, 20.0)
"""Waits between the first questions; most guests have their address after two seconds."""

SELDOM_SECONDS: Final = 120.0
"""An address that changed later is shown within two minutes."""


class Guests:
    """The guests whose agent is connected; one waiting task for each."""

    def __init__(self, ask: Callable[[str], Awaitable[GuestFacts]], tell: Callable[[str, GuestFacts], None]) -> None:
        self._ask = ask
        self._tell = tell
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, uid: str, connected: bool) -> None:  # noqa: FBT001 -- the agent's state is the whole message
        """Ask while the agent is connected, and forget the guest when it is not."""
        if connected and uid not in self._tasks:
            self._tasks[uid] = asyncio.create_task(self._keep_asking(uid), name=f"guest-{uid}")
        elif not connected and (task := self._tasks.pop(uid, None)) is not None:
            task.cancel()

    def restart(self, uid: str) -> None:
        """Begin anew: the agent has just come up, perhaps in a guest that was rebooted."""
        self.watch(uid, connected=False)
        self.watch(uid, connected=True)

    async def stop(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks.values():
            task.cancel()
        for task in self._tasks.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    async def _keep_asking(self, uid: str) -> None:
        for seconds in FIRST_SECONDS:
            await self._ask_once(uid, seconds)
        while True:
            await self._ask_once(uid, SELDOM_SECONDS)

    async def _ask_once(self, uid: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(NodeError):  # it has gone or does not answer: asked again later
            facts = await self._ask(uid)
            self._tell(uid, facts)
