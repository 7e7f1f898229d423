"""Everything the agent works with, in one value."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from virtfleet_node.agent.cells import Cells
from virtfleet_node.agent.device_table import DeviceTable
from virtfleet_node.core.desired.guest import HostFacts
from virtfleet_node.core.ports import DiskStore, ImageStore, Journal, MediaStore, Pools, Switch, WantedPools
from virtfleet_node.hypervisor.hypervisor import Hypervisor


@dataclass(frozen=True)
class Surroundings:
    """The agent's edges."""

    hypervisor: Hypervisor
    facts: HostFacts
    pools: Pools
    wanted_pools: WantedPools
    disks: DiskStore
    images: ImageStore
    media: MediaStore
    switch: Switch
    devices: DeviceTable
    journal: Journal
    state_directory: Path
    now: Callable[[], datetime]
    cells: Cells = field(default_factory=Cells)

    def console_log(self, uid: str) -> Path:
        """Return the path of a machine's console log."""
        return self.state_directory / "machines" / uid / "console.log"
