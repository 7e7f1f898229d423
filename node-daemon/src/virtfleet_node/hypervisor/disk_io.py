"""The counters of disks, as QEMU gives them to libvirt."""

from collections.abc import Mapping
from typing import Final

import libvirt

from virtfleet_node.core.desired.identity import parse_domain_name
from virtfleet_node.core.disk_io import DiskIo

_FIELDS: Final = {
    "read_bytes": "rd.bytes",
    "reads": "rd.reqs",
    "read_ns": "rd.times",
    "written_bytes": "wr.bytes",
    "writes": "wr.reqs",
    "write_ns": "wr.times",
}


def read_disk_io(connect: libvirt.virConnect) -> dict[str, dict[str, DiskIo]]:
    """Return the counters of all running guests' disks by machine and target, in one call. Blocks.

    A guest whose QEMU is busy with a job of libvirt's is left out: nobody waits for it.
    """
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    found = connect.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BLOCK, flags)
    named = ((parse_domain_name(domain.name()), stats) for domain, stats in found)
    return {uid: parse_stats(stats) for uid, stats in named if uid is not None}


def parse_stats(stats: Mapping[str, object]) -> dict[str, DiskIo]:
    """Return a domain's counters by target, such as vda; a drive without counters, such as an empty one, has none."""
    prefixes = (f"block.{disk}" for disk in range(int(str(stats.get("block.count", 0)))))
    counted = (prefix for prefix in prefixes if f"{prefix}.rd.bytes" in stats)
    return {str(stats[f"{prefix}.name"]): _io(stats, prefix) for prefix in counted}


def _io(stats: Mapping[str, object], prefix: str) -> DiskIo:
    return DiskIo(**{field: int(str(stats.get(f"{prefix}.{word}", 0))) for field, word in _FIELDS.items()})
