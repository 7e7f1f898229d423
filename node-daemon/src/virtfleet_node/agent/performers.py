"""Who carries out which long action, and what it is called meanwhile."""

from dataclasses import dataclass

from virtfleet_node.agent.copier import Copier
from virtfleet_node.agent.entry import Work
from virtfleet_node.agent.flattener import Flattener
from virtfleet_node.agent.wiper import Wiper
from virtfleet_node.core.actions import CloneDisks, FlattenDisk, LongAction, WipeDisk


@dataclass(frozen=True)
class Performers:
    """One for each kind of action."""

    copier: Copier
    flattener: Flattener
    wiper: Wiper

    async def perform(self, uid: str, work: Work) -> None:
        """Carry out an action to its end; NodeError."""
        match work.action:
            case CloneDisks():
                await self.copier.clone(uid, work, work.action)
            case FlattenDisk():
                await self.flattener.flatten(uid, work, work.action)
            case WipeDisk():
                await self.wiper.wipe(uid, work, work.action)

    def describe(self, action: LongAction) -> str:
        """Return what users read while it goes on."""
        match action:
            case CloneDisks():
                return self.copier.describe(action)
            case FlattenDisk():
                return "Making it independent of its image"
            case WipeDisk():
                return f"Overwriting disk {action.name}"
