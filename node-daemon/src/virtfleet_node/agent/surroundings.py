"""Everything the agent works with, in one value."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from virtfleet_node.agent.cells import Cells
from virtfleet_node.agent.device_table import DeviceTable
from virtfleet_node.agent.layer_use import LayerUse
from virtfleet_node.core.desired.guest import HostFacts
from virtfleet_node.core.ports import DiskStore, ImageStore, Journal, MediaStore, Pools, Switch, Volumes, WantedPools
from virtfleet_node.host.local_ports import LocalPorts
from virtfleet_node.host.programs import Programs
from virtfleet_node.hypervisor.hypervisor import Hypervisor

MERGE_BYTES_PER_SECOND: Final = 200 << 20


@dataclass(frozen=True)
class Surroundings:
    """The agent's edges."""

    hypervisor: Hypervisor
    facts: HostFacts
    pools: Pools
    wanted_pools: WantedPools
    disks: DiskStore
    volumes: Volumes
    images: ImageStore
    media: MediaStore
    switch: Switch
    devices: DeviceTable
    journal: Journal
    state_directory: Path
    now: Callable[[], datetime]
    cells: Cells = field(default_factory=Cells)
    local_ports: LocalPorts = field(default_factory=lambda: LocalPorts(Programs()))
    layer_use: LayerUse = field(default_factory=LayerUse)
    merge_bytes_per_second: int = MERGE_BYTES_PER_SECOND
    """How fast layers are merged, so that guests keep most of what a pool can do."""

    def console_log(self, uid: str) -> Path:
        """Return the path of a machine's console log."""
        return self.state_directory / "machines" / uid / "console.log"
