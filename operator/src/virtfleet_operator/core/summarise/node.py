"""The status of a VMNode: its inventory, what is promised, and whether it is heard."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.device import DeviceClassRule
from virtfleet_api.quantity import Bytes
from virtfleet_api.report import NetworkReport, NodeReport, NumaCell
from virtfleet_api.scheduling import TaintEffect
from virtfleet_api.vm_node import (
    NodeResources,
    NodeVersions,
    NumaCellStatus,
    VMNode,
    VMNodeStatus,
)
from virtfleet_operator.core.place import Load, allocatable
from virtfleet_operator.core.placement.filters import said_taint
from virtfleet_operator.core.summarise.bounds import MAX_CELLS, count_of, frequency_of, size_of
from virtfleet_operator.core.summarise.conditions import NO, NOBODY_KNOWS, YES, Saying, Says, conditions
from virtfleet_operator.core.summarise.devices import node_device_statuses
from virtfleet_operator.core.summarise.pools import pool_statuses, pools_said, pools_say
from virtfleet_operator.core.verdict import join_problems, plain

_MAX_WORD: Final = 128
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is decided about a node, and what it says."""

    problems: Sequence[str] = ()
    report: NodeReport | None = None
    heard: bool = False
    address: str | None = None
    load: Load = field(default_factory=Load)
    orphans: Sequence[str] = ()
    pools_refused: str = ""
    """Why the node did not take the pools that it shall have."""
    device_rules: Sequence[DeviceClassRule] = ()
    """Device classes of the whole fleet."""
    machine_names: Mapping[str, str] = field(default_factory=dict)
    """Machines that the node reports, as namespace/name, by UID."""


def summarise_node(node: VMNode, facts: NodeFacts, now: datetime) -> VMNodeStatus:
    """Return the status of a node; the inventory of one that is not heard is what was last known."""
    old, meta = node.status, node.metadata
    inventory = _inventory(node, facts, facts.report) if facts.report else {}
    said = (*_says(node, facts), *_pools_say(node, facts))
    return old.model_copy(
        update=inventory
        | {
            "observed_generation": meta.generation,
            "address": facts.address or old.address,
            "allocated": _resources(facts.load, facts.report.cpu_frequency_hz if facts.report else 0),
            "machines": facts.load.machines,
            "orphans": tuple(facts.orphans),
            "conditions": conditions(old.conditions, now, said),
        }
    )


def _inventory(node: VMNode, facts: NodeFacts, report: NodeReport) -> dict[str, object]:
    promised = allocatable(node, report)
    return {
        "tunnel_address": _tunnel_address(report) or node.status.tunnel_address,
        "hypervisor": plain(report.hypervisor, _MAX_WORD),
        "versions": NodeVersions(
            daemon=plain(report.daemon_version, _MAX_WORD),
            libvirt=plain(report.libvirt_version, _MAX_WORD),
            qemu=plain(report.qemu_version, _MAX_WORD),
        ),
        "cpu_frequency": frequency_of(report.cpu_frequency_hz),
        "capacity": NodeResources(cpus=count_of(report.cpus), memory=size_of(report.memory_bytes)),
        "allocatable": _resources(promised, report.cpu_frequency_hz),
        "numa": tuple(
            _cell(cell, memory) for cell in report.numa[:MAX_CELLS] if (memory := size_of(cell.memory_bytes))
        ),
        "devices": node_device_statuses(node, facts.device_rules, report, facts.machine_names),
        "pools": tuple(pool_statuses(node.status, report.pools)),
    }


def _tunnel_address(report: NodeReport) -> str:
    """Return what the node says of it; nothing while its Open vSwitch is away, and its tunnels are not."""
    return plain(report.network.tunnel_address, _MAX_WORD) if report.network else ""


def _cell(cell: NumaCell, memory: Bytes) -> NumaCellStatus:
    free = size_of(cell.free_bytes // _MIB * _MIB)
    load = f"{min(100, count_of(cell.load_percent))}%"
    return NumaCellStatus(
        cell=count_of(cell.cell), cpus=plain(cell.cpus, _MAX_WORD), memory=memory, free=free, load=load
    )


def _resources(load: Load, cpu_hz: int) -> NodeResources:
    """Return what machines are or may be promised; a dedicated CPU is reserved as a whole."""
    return NodeResources(
        cpus=count_of(load.vcpus),
        memory=size_of(load.all_memory_bytes),
        reserved=frequency_of(load.reserved_hz + load.dedicated_cpus * cpu_hz),
    )


def _says(node: VMNode, facts: NodeFacts) -> Iterator[Says]:
    generation = node.metadata.generation
    ready = _ready(facts)
    yield Says(ConditionType.READY, *ready, generation)
    yield Says(ConditionType.SCHEDULABLE, *_schedulable(node, ready), generation)
    if facts.orphans:
        message = (
            f"{len(facts.orphans)} machines on the node have no object: they are kept until an administrator "
            "removes them, see status.orphans."
        )
        yield Says(ConditionType.ORPHANS, YES, "Found", message, generation)

    yield from _network_says(generation, facts.report.network if facts.report else None)


def _network_says(generation: int, network: NetworkReport | None) -> Iterator[Says]:
    """Say whether cards can be plugged into switches; nothing of a node without Open vSwitch."""
    if network is None:
        return
    broken = next((uplink for uplink in network.uplinks if uplink.problem), None)
    if not network.connected:
        text = plain(network.problem) or "ovn-controller is not connected to the southbound database."
        said: Saying = NO, "NotConnected", text
    elif broken is not None:
        said = NO, "UplinkNotReady", plain(broken.problem)
    else:
        where = (
            f"datapath {plain(network.datapath, _MAX_WORD)}, tunnels end at {plain(network.tunnel_address, _MAX_WORD)}"
        )
        said = YES, "Ready", f"Cards can be plugged into switches ({where})."
    yield Says(ConditionType.NETWORK_READY, *said, generation)


def _pools_say(node: VMNode, facts: NodeFacts) -> Iterator[Says]:
    if facts.report is None:
        return pools_said(node.status.conditions)
    return pools_say(node.metadata.generation, node.spec.pools, facts.report.pools, facts.pools_refused)


def _ready(facts: NodeFacts) -> Saying:
    if facts.problems:
        return NO, "Invalid", join_problems(facts.problems)
    if not facts.heard:
        return NOBODY_KNOWS, "Unreachable", "The node daemon is not heard: see its log and the network between."
    if facts.report is None:
        return NO, "Connecting", "The node has not sent its inventory yet."
    if not facts.report.hypervisor_connected:
        return NO, "HypervisorUnavailable", "libvirtd does not answer the node daemon: see its log on the node."
    return YES, "Ready", "The node takes machines."


def _schedulable(node: VMNode, ready: Saying) -> Saying:
    """Say whether new machines may come; each machine's own wishes are another matter."""
    if node.metadata.deletion_timestamp is not None:
        return NO, "Deleting", "The node is being deleted and takes no new machines."
    if node.spec.maintenance:
        said = (
            "The node takes no new machines, and those that are there go on: set spec.maintenance to false to end it."
        )
        return NO, "Maintenance", said
    if ready[0] != YES:
        return NO, "NotReady", "The node takes no new machines until it is Ready."
    taints = ", ".join(said_taint(taint) for taint in node.spec.taints if taint.effect is TaintEffect.NO_SCHEDULE)
    if taints:
        return YES, "Tainted", f"The node takes machines that tolerate {plain(taints)}."
    return YES, "Open", "The node takes new machines."
