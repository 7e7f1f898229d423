"""Why a node cannot take a machine: each refusal in words that can be counted, `2 with too little free memory`."""

from typing import Final

from virtfleet_api.scheduling import Taint, TaintEffect
from virtfleet_operator.core.devices import device_refusal
from virtfleet_operator.core.effective import DEFAULT_CPU_MODEL
from virtfleet_operator.core.placement.candidate import Candidate
from virtfleet_operator.core.placement.labels import admits, untolerated
from virtfleet_operator.core.placement.need import Need
from virtfleet_operator.core.placement.vicinity import Vicinity

ARCHITECTURE: Final = "x86_64"
"""That of every machine type there is; see `spec.machineType`."""

_SIZES: Final = {2 << 20: "2Mi", 1 << 30: "1Gi"}


def refusal(asked: Need, node: Candidate, near: Vicinity) -> str:
    """Return why a node cannot take the machine; the first reason of a fixed order, or nothing."""
    if node.unready:
        return node.unready
    return _unwanted(asked, node) or _missing(asked, node) or near.refusal(node) or shortage(asked, node)


def _unwanted(asked: Need, node: Candidate) -> str:
    """Return what the machine's author or the node's administrator says against it."""
    if asked.node_name not in (None, node.name):
        return "without the disk that it is made from"
    if asked.node_selector and any(node.labels.get(key) != value for key, value in asked.node_selector.items()):
        return "not matching nodeSelector"
    wanted = asked.affinity.node_affinity if asked.affinity else None
    if wanted and not admits(wanted, node.labels):
        return "not matching nodeAffinity"
    taints = untolerated(node.taints, asked.tolerations, TaintEffect.NO_SCHEDULE) if node.taints else ()
    return f"with taint {said_taint(taints[0])}" if taints else ""


def _missing(asked: Need, node: Candidate) -> str:
    """Return what the node does not have at all."""
    if node.architecture not in ("", ARCHITECTURE):
        return f"with architecture {node.architecture}"
    if asked.cpu_model != DEFAULT_CPU_MODEL and node.cpu_models and asked.cpu_model not in node.cpu_models:
        return f"unable to give CPU model {asked.cpu_model}"
    for pool in sorted(asked.pools) if asked.pools else ():
        if problem := _pool_refusal(pool, asked.pools[pool], node):
            return problem
    for claim in sorted(asked.unreachable):
        if node.name in asked.unreachable[claim]:
            return f"without volume {claim}"
    if not asked.uplinks <= node.uplinks:
        uplink = min(asked.uplinks - node.uplinks)
        return f"without network {uplink}" if uplink else "without virtual switches"
    return device_refusal(asked.devices, node.load.devices, node.devices) if asked.devices else ""


def shortage(asked: Need, node: Candidate) -> str:
    """Return what the node has too little of."""
    return _cpu_shortage(asked, node) or _memory_shortage(asked, node) or _reservation_shortage(asked, node)


def _cpu_shortage(asked: Need, node: Candidate) -> str:
    """Follow what may be promised: a CPU that one machine has for itself cannot be shared by others.

    Of n CPUs that may be promised as v vCPUs, each dedicated one takes v/n of them away. One CPU of each cell is never
    dedicated: QEMU's own threads, the host, and machines that share need a place there.
    """
    dedicated = node.load.dedicated_cpus + (asked.vcpus if asked.dedicated else 0)
    if asked.dedicated and dedicated > node.cpus - max(1, len(node.cells)):
        return "with too few CPUs to dedicate"
    shared = node.load.vcpus + asked.vcpus - dedicated
    if shared * max(1, node.cpus) + dedicated * node.vcpus > node.vcpus * max(1, node.cpus):
        return "with too few free vCPUs"
    return ""


def _memory_shortage(asked: Need, node: Candidate) -> str:
    size = asked.hugepage_bytes
    if size is None:
        return "with too little free memory" if node.load.memory_bytes + asked.memory_bytes > node.memory_bytes else ""
    room, pages = node.hugepages.get(size), f"huge pages of {_SIZES.get(size, size)}"
    if room is None:
        return f"without {pages}"
    left = min(room.total_bytes - node.load.hugepages.get(size, 0), room.free_bytes)
    return f"with too few free {pages}" if asked.memory_bytes > left else ""


def _reservation_shortage(asked: Need, node: Candidate) -> str:
    """Follow reservations; a dedicated CPU is reserved as a whole."""
    if asked.reserved_hz > asked.vcpus * node.cpu_hz:
        return "with CPUs too slow for the reservation"
    wanted = asked.vcpus * node.cpu_hz if asked.dedicated else asked.reserved_hz
    given = node.load.reserved_hz + node.load.dedicated_cpus * node.cpu_hz
    return "with too little unreserved CPU" if wanted and given + wanted > node.reserved_hz else ""


def _pool_refusal(pool: str, size_bytes: int, node: Candidate) -> str:
    room = node.pools.get(pool)
    if room is None:
        return f"without pool {pool}"
    if room.nearly_full:
        return f"with pool {pool} nearly full"
    if room.left_bytes is not None and size_bytes > room.left_bytes:
        return f"with too little room in pool {pool}"
    return ""


def said_taint(taint: Taint) -> str:
    """Write a taint as `kubectl taint` does, without its effect."""
    return f"{taint.key}={taint.value}" if taint.value else taint.key
