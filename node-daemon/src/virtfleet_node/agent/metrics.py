"""Every metric of the daemon that is read when it is asked for. Names are API: dashboards and alerts use them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from virtfleet_api.report import MachineReport, NumaCell, PoolReport
from virtfleet_node.agent.cpu_metrics import CpuMetrics
from virtfleet_node.agent.disk_io_metrics import DiskIoMetrics
from virtfleet_node.agent.machine_metrics import MachineMetrics
from virtfleet_node.agent.network_metrics import NetworkMetrics
from virtfleet_node.agent.node_metrics import NodeFacts, NodeMetrics, NodeState
from virtfleet_node.agent.numa_metrics import NumaMetrics
from virtfleet_node.agent.storage_metrics import StorageMetrics
from virtfleet_node.agent.storage_watch import DiskFigure
from virtfleet_node.core.cpu_figure import CpuFigure
from virtfleet_node.core.disk_io import DiskIoFigure
from virtfleet_node.core.traffic import CardFigure


@dataclass(frozen=True)
class Sources:
    """Where the figures come from; each may be called by any thread. Without any, names and meanings are still told."""

    facts: NodeFacts = field(default_factory=NodeFacts)
    state: NodeState = field(default_factory=NodeState)
    machines: Callable[[], Iterable[MachineReport]] = tuple
    cpus: Callable[[], Iterable[CpuFigure]] = tuple
    pools: Callable[[], Iterable[PoolReport]] = tuple
    disks: Callable[[], Iterable[DiskFigure]] = tuple
    disk_io: Callable[[], Iterable[DiskIoFigure]] = tuple
    cards: Callable[[], Iterable[CardFigure]] = tuple
    cells: Callable[[], Iterable[NumaCell]] = tuple
    moves: Callable[[], int] = int


def register(registry: CollectorRegistry, sources: Sources) -> None:
    """Have the registry tell of everything there is."""
    NodeMetrics(registry, sources.facts, sources.state)
    MachineMetrics(registry, sources.machines)
    CpuMetrics(registry, sources.cpus)
    StorageMetrics(registry, sources.pools, sources.disks)
    DiskIoMetrics(registry, sources.disk_io)
    NetworkMetrics(registry, sources.cards)
    NumaMetrics(registry, sources.cells, sources.moves)
