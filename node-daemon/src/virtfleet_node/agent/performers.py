"""Who carries out which long action, and what it is called meanwhile."""

from dataclasses import dataclass

from virtfleet_node.agent.copier import Copier
from virtfleet_node.agent.entry import Work
from virtfleet_node.agent.flattener import Flattener
from virtfleet_node.agent.merger import Merger
from virtfleet_node.agent.wiper import Wiper
from virtfleet_node.core.actions import CloneDisks, FlattenDisk, LongAction, MergeLayers, WipeDisk


@dataclass(frozen=True)
class Performers:
    """One for each kind of action."""

    copier: Copier
    flattener: Flattener
    merger: Merger
    wiper: Wiper

    async def perform(self, uid: str, work: Work) -> None:
        """Carry out an action to its end; NodeError."""
        match work.action:
            case CloneDisks():
                await self.copier.clone(uid, work, work.action)
            case FlattenDisk():
                await self.flattener.flatten(uid, work, work.action)
            case MergeLayers():
                await self.merger.fold(uid, work)
            case WipeDisk():
                await self.wiper.wipe(uid, work, work.action)

    def describe(self, action: LongAction) -> str:
        """Return what users read while it goes on."""
        match action:
            case CloneDisks():
                return self.copier.describe(action)
            case FlattenDisk():
                return "Making it independent of its image"
            case MergeLayers():
                return "Merging layers that no snapshot needs"
            case WipeDisk():
                return f"Overwriting disk {action.name}"
