"""Guests whose file systems are frozen for a moment: each goes on afterwards, whatever fails or is killed meanwhile.

Before a guest is frozen the file `frozen` is written beside its console's log; it is removed once the guest goes on.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.errors import ConflictError, NodeError, UnavailableError
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import ObservedDomain

T_co = TypeVar("T_co", covariant=True)


class FreezingCall(Protocol[T_co]):
    """A call that freezes the guest, or does not."""

    def __call__(self, *, freeze: bool) -> Awaitable[T_co]:
        """Make the call."""


_AGAIN_SECONDS: Final = 3.0
"""A guest that writes nothing is noticed by its users within seconds."""


class Freezer:
    """Lets guests go on, and asks those again that do not answer."""

    def __init__(self, around: Surroundings, entries: Mapping[str, Entry]) -> None:
        self._around = around
        self._entries = entries

    async def run(self) -> None:
        """See again and again that no guest stays frozen, whoever froze it, until cancelled."""
        while True:
            for uid in tuple(self._entries):
                with suppress(NodeError, OSError):  # it is asked again
                    await self.thaw(uid)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def thaw(self, uid: str) -> None:
        """Make sure that a guest goes on if it was frozen; if it does not answer, it is asked again.

        Raises:
            NodeError: libvirtd is away.
        """
        entry = self._entries.get(uid)
        if entry is None or not self._mark(uid).exists():
            return
        async with entry.freezing:
            await self._thaw(uid)

    async def read_facts(self, uid: str) -> GuestFacts:
        """Ask a guest's agent for facts.

        Raises:
            NodeError: it cannot be asked, or the guest may be frozen; then its agent would not tell any.
        """
        if self._mark(uid).exists():
            raise ConflictError("The guest is frozen.")
        return await self._around.hypervisor.read_guest_facts(uid)

    async def freeze(self, uid: str, call: FreezingCall[T_co]) -> T_co:
        """Return what a call returns that freezes the guest; then the guest goes on, also when this is cancelled.

        A guest whose agent does not answer is not frozen: nobody could say afterwards whether it goes on.

        Raises:
            NodeError: what the call raises.
        """
        work = asyncio.ensure_future(self._freeze(uid, call))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def _freeze(self, uid: str, call: FreezingCall[T_co]) -> T_co:
        async with self._entries[uid].freezing:
            if not await self._answers(uid):
                return await call(freeze=False)
            run = _name_run(await self._around.hypervisor.read(uid))
            await asyncio.to_thread(self._mark(uid).write_text, run)
            try:
                return await call(freeze=True)
            finally:
                with suppress(NodeError, OSError):  # it is asked again
                    await self._thaw(uid)

    async def _thaw(self, uid: str) -> None:
        mark = self._mark(uid)
        if not mark.exists():
            return
        domain = await self._around.hypervisor.read(uid)
        frozen = domain.active and mark.read_text() in {"", _name_run(domain)}
        if await self._answers(uid) or not frozen:
            mark.unlink(missing_ok=True)

    async def _answers(self, uid: str) -> bool:
        try:
            await self._around.hypervisor.thaw(uid)
        except UnavailableError:
            raise
        except NodeError:
            return False
        return True

    def _mark(self, uid: str) -> Path:
        return self._around.console_log(uid).with_name("frozen")


def _name_run(domain: ObservedDomain) -> str:
    """Return what tells a run of the guest from its next; empty when that is not known."""
    started_at = domain.stored.record.started_at if domain.stored else None
    return started_at.isoformat() if started_at else ""
