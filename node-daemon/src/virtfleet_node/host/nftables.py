"""The host's packet filter, by nft."""

from virtfleet_node.core.firewall import TABLE
from virtfleet_node.host.programs import ProgramError, ProgramMissingError, Programs


class Nftables:
    """The rules of the network namespace that programs are started in."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    async def load(self, text: str) -> None:
        """Load rules in one transaction; ProgramError."""
        await self._programs.run("nft", "-f", "-", given=text)

    async def read_table(self) -> str | None:
        """Return our table as nft lists it, without counters; None when it is not there.

        Raises:
            ProgramMissingError: there is no nft.
        """
        try:
            return await self._programs.run("nft", "-s", "list", "table", *TABLE.split())
        except ProgramMissingError:
            raise
        except ProgramError:
            return None
