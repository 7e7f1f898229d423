"""Who gets what of the CPUs of a host, and by which weights.

Weights are the shares; the kernel's own sharing is right by them. Only the weight of a machine with a reservation
follows what the machines do, and nothing has to be measured where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from virtfleet_api.machine import CpuScheduling
from virtfleet_node.core.cpu_groups import CpuGroup, group_by_cpus
from virtfleet_node.core.entitlements import Claim, entitlements, raised_shares
from virtfleet_node.core.host_cpu import HostCpu
from virtfleet_node.core.weights import shares_of


@dataclass(frozen=True)
class Contender:
    """A running machine."""

    scheduling: CpuScheduling
    vcpus: int
    cpus: frozenset[int] | None = None
    """CPUs of the host that it may run on; None for any."""
    demand: float | None = None
    """In CPUs; None for all it can get."""


@dataclass(frozen=True)
class Portion:
    """What a machine is given."""

    shares: float
    """To be made its weight."""
    entitled_hz: float


def has_reservation(contenders: Mapping[str, Contender]) -> bool:
    """Tell whether weights follow what machines do."""
    return any(contender.scheduling.reservation_hz for contender in contenders.values())


def share_out(contenders: Mapping[str, Contender], host: HostCpu) -> dict[str, Portion]:
    """Return each machine's part."""
    everywhere = frozenset(range(host.cpus))
    sets = {uid: contender.cpus or everywhere for uid, contender in contenders.items()}
    return {
        uid: portion
        for group in group_by_cpus(sets)
        for uid, portion in _share_group(group, {uid: contenders[uid] for uid in group.members}, host).items()
    }


def _share_group(group: CpuGroup, members: Mapping[str, Contender], host: HostCpu) -> dict[str, Portion]:
    capacity = float(len(group.cpus) * host.frequency_hz)
    claims = {uid: _claim(member, host.frequency_hz) for uid, member in members.items()}
    entitled = entitlements(capacity, claims)
    shares = raised_shares(capacity, claims) if capacity > 0 else {uid: claim.shares for uid, claim in claims.items()}
    return {uid: Portion(shares[uid], entitled[uid]) for uid in claims}


def _claim(member: Contender, frequency_hz: int) -> Claim:
    most = float(max(1, member.vcpus) * frequency_hz)
    limit = member.scheduling.limit_hz
    return Claim(
        shares=shares_of(member.scheduling, member.vcpus),
        ceiling=most if limit is None else min(most, float(limit)),
        demand=most if member.demand is None else member.demand * frequency_hz,
        reservation=float(member.scheduling.reservation_hz),
    )
