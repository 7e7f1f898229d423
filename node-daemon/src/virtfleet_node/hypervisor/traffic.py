"""The counters of network cards, as libvirt gives them: from the guest's view already."""

from collections.abc import Mapping
from typing import Final

import libvirt

from virtfleet_node.core.desired.identity import parse_domain_name
from virtfleet_node.core.traffic import Traffic

_FIELDS: Final = {
    "received_bytes": "rx.bytes",
    "received_packets": "rx.pkts",
    "received_drops": "rx.drop",
    "sent_bytes": "tx.bytes",
    "sent_packets": "tx.pkts",
    "sent_drops": "tx.drop",
}


def read_traffic(connect: libvirt.virConnect) -> dict[str, dict[str, Traffic]]:
    """Return the traffic of all running guests' cards by machine and device, in one call. Blocks."""
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    found = connect.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_INTERFACE, flags)
    named = ((parse_domain_name(domain.name()), stats) for domain, stats in found)
    return {uid: parse_stats(stats) for uid, stats in named if uid is not None}


def parse_stats(stats: Mapping[str, object]) -> dict[str, Traffic]:
    """Return a domain's traffic by device; a card without a device on the node has none."""
    cards = range(int(str(stats.get("net.count", 0))))
    named = ((f"net.{card}", stats.get(f"net.{card}.name")) for card in cards)
    return {name: _traffic(stats, prefix) for prefix, name in named if isinstance(name, str)}


def _traffic(stats: Mapping[str, object], prefix: str) -> Traffic:
    return Traffic(**{field: int(str(stats.get(f"{prefix}.{word}", 0))) for field, word in _FIELDS.items()})
