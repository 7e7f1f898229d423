"""The node's own firewall, kept in place: loaded again when its peers change, or somebody has changed or flushed it."""

from collections.abc import Iterable

from virtfleet_node.core.firewall import compile_removal, compile_ruleset, parse_peers
from virtfleet_node.host.nftables import Nftables
from virtfleet_node.host.programs import ProgramError, ProgramMissingError


class Firewall:
    """The table of ours among the host's rules."""

    def __init__(self, nftables: Nftables, ports: Iterable[int], *, enabled: bool) -> None:
        """Take the daemon's own TCP ports."""
        self._nftables = nftables
        self._ports = tuple(ports)
        self._enabled = enabled
        self._loaded = ""
        self._listed: str | None = None
        """What nft listed after that was loaded."""

    async def apply(self, peers: Iterable[str]) -> tuple[bool, str]:
        """Have the table as it shall be; tell whether there is one, and what keeps it from being there.

        Without peers there is none: nobody could reach the node to tell it of any.
        """
        known = tuple(peers)
        if not self._enabled or not known:
            return False, await self._remove()
        try:
            await self._load(compile_ruleset(parse_peers(known), self._ports))
        except ProgramError as error:
            return False, f"The node's firewall is not in place: {error}."
        return True, ""

    async def _load(self, text: str) -> None:
        listed = await self._nftables.read_table()
        if listed is not None and (text, listed) == (self._loaded, self._listed):
            return
        await self._nftables.load(text)
        self._loaded, self._listed = text, await self._nftables.read_table()

    async def _remove(self) -> str:
        try:
            if await self._nftables.read_table() is not None:
                await self._nftables.load(compile_removal())
        except ProgramMissingError:
            return ""
        except ProgramError as error:
            return f"The node's firewall cannot be removed: {error}."
        return ""
