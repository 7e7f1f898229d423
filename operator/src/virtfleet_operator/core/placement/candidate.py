"""What a node offers to machines."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from virtfleet_api.device import DeviceClassRule
from virtfleet_api.pool import PoolType
from virtfleet_api.report import NetworkReport, NodeReport, PoolReport
from virtfleet_api.scheduling import Taint
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.devices import Units, device_units
from virtfleet_operator.core.placement.need import Load, Need, added

HOSTNAME_LABEL: Final = "kubernetes.io/hostname"
"""Every node carries it with its own name, as Kubernetes' nodes do, so that a selector can name one node."""

ARCH_LABEL: Final = "kubernetes.io/arch"
"""Every node that reports carries it, with Kubernetes' names of architectures."""

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the operator knows it."""

    node: VMNode
    report: NodeReport | None = None
    heard: bool = False
    load: Load = field(default_factory=Load)
    device_rules: Sequence[DeviceClassRule] = ()
    """Device classes of the whole fleet."""


@dataclass(frozen=True, slots=True)
class PoolRoom:
    """What a pool still takes."""

    nearly_full: bool = False
    left_bytes: int | None = None
    """Sizes of disks that may still be promised; None for any."""
    shared: bool = False
    """Other nodes have the same folder."""


@dataclass(frozen=True, slots=True)
class HugepageRoom:
    """Huge pages of one size, on all cells together."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What a NUMA cell may take as a whole."""

    cpus: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as placement sees it. `unready` says why it takes no machine; empty when it does."""

    name: str
    unready: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, PoolRoom] = field(default_factory=dict)
    vcpus: int = 0
    """vCPUs that may be promised, with the overcommit."""
    memory_bytes: int = 0
    """Ordinary memory that may be promised, with the overcommit."""
    load: Load = field(default_factory=Load)
    uplinks: frozenset[str] = frozenset()
    """Physical networks that are connected, and "" where tunnels are."""
    reserved_hz: int = 0
    """What may be reserved of its CPUs."""
    cpu_hz: int = 0
    """Nominal frequency of one of its CPUs."""
    devices: Units = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    cpus: int = 0
    """CPUs of the host."""
    architecture: str = ""
    cpu_models: frozenset[str] = frozenset()
    """CPU models that its guests can have, host-passthrough among them; empty where that is not known."""
    hugepages: Mapping[int, HugepageRoom] = field(default_factory=dict)
    """By the size of a page in bytes."""
    cells: tuple[Cell, ...] = ()


def allocatable(node: VMNode, report: NodeReport) -> Load:
    """Return what a node may promise: what it has, less the reserve, times the overcommit.

    Memory that is set aside for huge pages is promised once, and to machines alone that ask for huge pages.
    What is reserved of CPUs is never promised twice.
    """
    huge = {size: room.total_bytes for size, room in _hugepages(report).items()}
    ordinary = report.memory_bytes - (node.spec.system_reserved.memory or 0) - sum(huge.values())
    cpu, memory = Decimal(node.spec.overcommit.cpu), Decimal(node.spec.overcommit.memory)
    return Load(
        vcpus=int(report.cpus * cpu),
        memory_bytes=int(max(0, ordinary) * memory),
        reserved_hz=max(0, report.cpus * report.cpu_frequency_hz),
        hugepages=huge,
    )


def left(node: VMNode, report: NodeReport, promised: Load) -> tuple[int, int]:
    """Return vCPUs and bytes of ordinary memory that may still be promised; negative when it was too much.

    A dedicated CPU takes its share of the overcommit away.
    """
    offered, own = allocatable(node, report), promised.dedicated_cpus
    shared = promised.vcpus - own
    gone = -(-own * offered.vcpus // max(1, report.cpus))
    return offered.vcpus - gone - shared, offered.memory_bytes - promised.memory_bytes


def candidate(view: NodeView) -> Candidate:
    """Return a node as placement sees it."""
    name, spec, report = view.node.metadata.name, view.node.spec, view.report
    labels = {HOSTNAME_LABEL: name} | view.node.metadata.labels
    if report is None:
        return Candidate(name, unready="not ready", labels=labels, load=view.load, taints=spec.taints)
    promised = allocatable(view.node, report)
    return Candidate(
        name=name,
        unready=_unready(view, report),
        labels={ARCH_LABEL: _ARCHITECTURES.get(report.architecture, report.architecture)} | labels,
        pools={p.name: _room(p, view.load) for p in report.pools if p.capacity_bytes and not p.leaving},
        uplinks=_uplinks(report.network),
        vcpus=promised.vcpus,
        memory_bytes=promised.memory_bytes,
        load=view.load,
        reserved_hz=promised.reserved_hz,
        cpu_hz=max(0, report.cpu_frequency_hz),
        devices=device_units(view.node, view.device_rules, report),
        taints=spec.taints,
        cpus=report.cpus,
        architecture=report.architecture,
        cpu_models=frozenset(report.cpu_models),
        hugepages=_hugepages(report),
        cells=_cells(report),
    )


def with_machine(node: Candidate, asked: Need) -> Candidate:
    """Return a node as it is once the machine is there."""
    pools = {
        name: replace(room, left_bytes=room.left_bytes - asked.pools.get(name, 0))
        if room.left_bytes is not None
        else room
        for name, room in node.pools.items()
    }
    return replace(node, load=node.load + added(asked), pools=pools)


def _hugepages(report: NodeReport) -> Mapping[int, HugepageRoom]:
    totals, free = Counter[int](), Counter[int]()
    for cell in report.numa:
        for pages in cell.hugepages:
            totals[pages.page_bytes] += pages.page_bytes * max(0, pages.total)
            free[pages.page_bytes] += pages.page_bytes * max(0, pages.free)
    return {size: HugepageRoom(total, free[size]) for size, total in totals.items() if total > 0}


def _cells(report: NodeReport) -> tuple[Cell, ...]:
    """Return the cells; memory that is free is not told by every daemon."""
    told = any(cell.free_bytes for cell in report.numa)
    return tuple(Cell(_count(cell.cpus), cell.free_bytes if told else cell.memory_bytes) for cell in report.numa)


def _count(cpus: str) -> int:
    """Count a list of CPUs such as "0-3,8"; 0 for what is none."""
    return sum(_length(*part.partition("-")[::2]) for part in cpus.split(","))


def _length(first: str, last: str) -> int:
    if not (first.isdecimal() and (last or first).isdecimal()):
        return 0
    return max(0, int(last or first) - int(first) + 1)


def _uplinks(network: NetworkReport | None) -> frozenset[str]:
    if network is None or not network.connected:
        return frozenset()
    return frozenset({"", *(uplink.interface for uplink in network.uplinks if not uplink.problem)})


def _room(pool: PoolReport, load: Load) -> PoolRoom:
    promised = pool.committed_bytes + load.disks.get(pool.name, 0)
    left = None if pool.limit_bytes is None else pool.limit_bytes - promised
    return PoolRoom(pool.nearly_full, left, shared=pool.type is PoolType.SHARED)


def _unready(view: NodeView, report: NodeReport) -> str:
    if view.node.metadata.deletion_timestamp is not None:
        return "being deleted"
    if not (view.heard and report.hypervisor_connected):
        return "not ready"
    return "in maintenance" if view.node.spec.maintenance else ""


def by_name(nodes: Iterable[Candidate]) -> Mapping[str, Candidate]:
    """Return the nodes by their names."""
    return {node.name: node for node in nodes}
