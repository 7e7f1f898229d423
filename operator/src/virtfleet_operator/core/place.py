"""Which node takes a machine: the one that is least full afterwards, so that machines spread.

Every bound machine counts, whether it runs or not: a machine that was accepted can always be started again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from virtfleet_api.device import DeviceClassRule
from virtfleet_api.pool import PoolType
from virtfleet_api.report import NetworkReport, NodeReport, PoolReport
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.devices import Units, asked_devices, device_refusal, device_units
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.network.cards import Card
from virtfleet_operator.core.verdict import Unschedulable

HOSTNAME_LABEL: Final = "kubernetes.io/hostname"
"""Every node carries it with its own name, as Kubernetes' nodes do, so that a selector can name one node."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a machine asks of its node."""

    vcpus: int
    memory_bytes: int
    pools: Mapping[str, int] = field(default_factory=dict)
    """Sizes of its disks in bytes, by pool."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_name: str | None = None
    """The node with the disks that the machine's own are copied from."""
    uplinks: frozenset[str] = frozenset()
    """Network devices of the switches that its cards are on; "" for an Overlay."""
    reserved_hz: int = 0
    devices: Mapping[str, int] = field(default_factory=dict)
    """How many devices of the host it needs, see `asked_devices`."""


@dataclass(frozen=True, slots=True)
class Load:
    """What machines are promised."""

    machines: int = 0
    vcpus: int = 0
    memory_bytes: int = 0
    disks: Mapping[str, int] = field(default_factory=dict)
    """Sizes in bytes, by pool, of disks that their node does not report yet."""
    reserved_hz: int = 0
    devices: Mapping[str, int] = field(default_factory=dict)
    """How many devices of the host machines have that shall run, see `asked_devices`."""

    def __add__(self, other: "Load") -> "Load":
        return self._plus(other, 1)

    def __sub__(self, other: "Load") -> "Load":
        return self._plus(other, -1)

    def _plus(self, other: "Load", sign: int) -> "Load":
        return Load(
            self.machines + sign * other.machines,
            self.vcpus + sign * other.vcpus,
            self.memory_bytes + sign * other.memory_bytes,
            _sums(self.disks, other.disks, sign),
            self.reserved_hz + sign * other.reserved_hz,
            _sums(self.devices, other.devices, sign),
        )


def _sums(one: Mapping[str, int], other: Mapping[str, int], sign: int) -> Mapping[str, int]:
    sums = {name: one.get(name, 0) + sign * other.get(name, 0) for name in one.keys() | other.keys()}
    return {name: amount for name, amount in sums.items() if amount}


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the operator knows it."""

    node: VMNode
    report: NodeReport | None = None
    heard: bool = False
    load: Load = Load()
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
class Candidate:
    """A node as placement sees it. `unready` says why it takes no machine; empty when it does."""

    name: str
    unready: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, PoolRoom] = field(default_factory=dict)
    vcpus: int = 0
    memory_bytes: int = 0
    load: Load = Load()
    uplinks: frozenset[str] = frozenset()
    """Physical networks that are connected, and "" where tunnels are."""
    reserved_hz: int = 0
    """What may be reserved of its CPUs."""
    cpu_hz: int = 0
    """Nominal frequency of one of its CPUs."""
    devices: Units = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """The node that takes the machine."""

    node_name: str


def need(
    vm: VirtualMachine,
    sizing: Sizing,
    disks: Mapping[str, int],
    node_name: str | None = None,
    cards: Iterable[Card] = (),
) -> Need:
    """Return what a machine asks of its node; `disks` are the sizes by pool, see `disk_sizes`."""
    uplinks = frozenset(card.switch.spec.uplink.interface if card.switch.spec.uplink else "" for card in cards)
    return Need(
        sizing.vcpus,
        sizing.memory_bytes,
        disks,
        vm.spec.node_selector,
        node_name,
        uplinks,
        sizing.scheduling.reservation_hz,
        asked_devices(vm),
    )


def load_of(sizing: Sizing, disks: Mapping[str, int], devices: Mapping[str, int] | None = None) -> Load:
    """Return what one machine adds to its node; `devices` are those it is promised, see `promised_devices`."""
    return Load(1, sizing.vcpus, sizing.memory_bytes, disks, sizing.scheduling.reservation_hz, devices or {})


def allocatable(node: VMNode, report: NodeReport) -> Load:
    """Return what a node may promise: what it has, less the reserve, times the overcommit.

    What is reserved of CPUs is never promised twice.
    """
    reserved = node.spec.system_reserved.memory or 0
    cpu, memory = Decimal(node.spec.overcommit.cpu), Decimal(node.spec.overcommit.memory)
    frequencies = max(0, report.cpus * report.cpu_frequency_hz)
    return Load(
        0, int(report.cpus * cpu), int(max(0, report.memory_bytes - reserved) * memory), reserved_hz=frequencies
    )


def candidate(view: NodeView) -> Candidate:
    """Return a node as placement sees it."""
    name = view.node.metadata.name
    if view.report is None:
        return Candidate(name, unready="not ready", load=view.load)
    promised = allocatable(view.node, view.report)
    return Candidate(
        name=name,
        unready=_unready(view, view.report),
        labels={HOSTNAME_LABEL: name} | view.node.metadata.labels,
        pools={p.name: _room(p, view.load) for p in view.report.pools if p.capacity_bytes and not p.leaving},
        uplinks=_uplinks(view.report.network),
        devices=device_units(view.node, view.device_rules, view.report),
        vcpus=promised.vcpus,
        memory_bytes=promised.memory_bytes,
        load=view.load,
        reserved_hz=promised.reserved_hz,
        cpu_hz=max(0, view.report.cpu_frequency_hz),
    )


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
    return "" if view.heard and report.hypervisor_connected else "not ready"


def place(asked: Need, candidates: Iterable[Candidate]) -> Placed | Unschedulable:
    """Choose the node that is least full afterwards; equal ones by number of machines, then by name."""
    fitting, refusals = [], Counter[str]()
    total = 0
    for node in candidates:
        total += 1
        if refusal := _refusal(asked, node):
            refusals[refusal] += 1
        else:
            fitting.append(node)
    if fitting:
        return Placed(min(fitting, key=lambda node: (_fullness(asked, node), node.load.machines, node.name)).name)
    return Unschedulable(_explanation(total, refusals))


def _fullness(asked: Need, node: Candidate) -> float:
    """Return the scarcer of CPU and memory, as the share that is promised once the machine is there."""
    cpu = (node.load.vcpus + asked.vcpus) / node.vcpus
    return max(cpu, (node.load.memory_bytes + asked.memory_bytes) / node.memory_bytes)


def _refusal(asked: Need, node: Candidate) -> str:
    """Return why a node cannot take the machine; the first reason of a fixed order, or nothing."""
    if node.unready:
        return node.unready
    if asked.node_name not in (None, node.name):
        return "without the disk that it is made from"
    if any(node.labels.get(key) != value for key, value in asked.node_selector.items()):
        return "not matching nodeSelector"
    if refusal := next(filter(None, (_pool_refusal(*item, node) for item in sorted(asked.pools.items()))), ""):
        return refusal
    for uplink in sorted(asked.uplinks - node.uplinks):
        return f"without network {uplink}" if uplink else "without virtual switches"
    return device_refusal(asked.devices, node.load.devices, node.devices) or _shortage(asked, node)


def _shortage(asked: Need, node: Candidate) -> str:
    if node.load.vcpus + asked.vcpus > node.vcpus:
        return "with too few free vCPUs"
    if node.load.memory_bytes + asked.memory_bytes > node.memory_bytes:
        return "with too little free memory"
    if asked.reserved_hz > asked.vcpus * node.cpu_hz:
        return "with CPUs too slow for the reservation"
    if asked.reserved_hz and node.load.reserved_hz + asked.reserved_hz > node.reserved_hz:
        return "with too little unreserved CPU"
    return ""


def _pool_refusal(pool: str, size_bytes: int, node: Candidate) -> str:
    room = node.pools.get(pool)
    if room is None:
        return f"without pool {pool}"
    if room.nearly_full:
        return f"with pool {pool} nearly full"
    if room.left_bytes is not None and size_bytes > room.left_bytes:
        return f"with too little room in pool {pool}"
    return ""


def _explanation(total: int, refusals: Mapping[str, int]) -> str:
    if not total:
        return "there is no node: start a node daemon and let it enrol"
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(refusals.items(), key=lambda r: (-r[1], r[0])))
    return f"0/{total} nodes fit: {said}"
