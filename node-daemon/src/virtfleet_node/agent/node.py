"""The node's own report."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from virtfleet_api.report import HostDevice, NetworkReport, NodeReport, NumaCell, PoolReport
from virtfleet_node.config import Config
from virtfleet_node.core.desired.guest import HostFacts
from virtfleet_node.core.numa.load import steady_cells
from virtfleet_node.core.ports import Pools
from virtfleet_node.host.inventory import Inventory
from virtfleet_node.hypervisor.hypervisor import Versions

_STEP: Final = 100
"""Free space is told anew when it changed by a hundredth of the pool: nobody decides by less."""


@dataclass
class NodeDescription:
    """What the node's report is made of."""

    config: Config
    inventory: Inventory
    facts: HostFacts
    versions: Versions
    pools: Pools
    read_network: Callable[[], NetworkReport | None]
    read_devices: Callable[[], tuple[HostDevice, ...]]
    read_cells: Callable[[], tuple[NumaCell, ...]] = tuple
    told: tuple[PoolReport, ...] = ()
    told_cells: tuple[NumaCell, ...] = ()

    def report(self, *, connected: bool) -> NodeReport:
        """Return the report as it is now."""
        self.told = tuple(_steady(self.told, pool) for pool in self.pools.reports())
        self.told_cells = steady_cells(self.told_cells, self.read_cells())
        return NodeReport(
            name=self.config.node_name,
            daemon_version=version("virtfleet"),
            libvirt_version=self.versions.libvirt,
            qemu_version=self.versions.qemu,
            hypervisor=self.facts.domain_type,
            architecture=self.inventory.architecture,
            cpu_models=self.facts.cpu_models,
            cpus=self.inventory.cpus,
            cpu_frequency_hz=self.inventory.cpu_frequency_hz,
            memory_bytes=self.inventory.memory_bytes,
            numa=self.told_cells,
            devices=self.read_devices(),
            render_node=bool(self.facts.render_node),
            pools=self.told,
            labels=self.config.labels,
            hypervisor_connected=connected,
            network=self.read_network(),
            copy_port=self.config.copy_listen.port,
        )


def _steady(told: tuple[PoolReport, ...], pool: PoolReport) -> PoolReport:
    """Return the pool with the free space that was told before, unless that changed by a step."""
    before = next((t for t in told if t.name == pool.name and t.capacity_bytes == pool.capacity_bytes), None)
    if before is None or abs(before.free_bytes - pool.free_bytes) * _STEP > pool.capacity_bytes:
        return pool
    return pool.model_copy(update={"free_bytes": before.free_bytes})
