"""From what machines are entitled to, to the weights of their control groups."""

from collections.abc import Mapping
from typing import Final, TypeVar

from virtfleet_api.machine import CpuScheduling
from virtfleet_node.core.host_cpu import WeightScale

K = TypeVar("K")

SHARES_PER_VCPU: Final = 1000
"""Of a machine that names none."""

_STEP: Final = 100
"""A weight is written anew when it has changed by a hundredth: the kernel's own accuracy is no better."""


def shares_of(scheduling: CpuScheduling, vcpus: int) -> int:
    """Return a machine's shares."""
    return scheduling.shares or SHARES_PER_VCPU * max(1, vcpus)


def weight_alone(shares: float, scale: WeightScale) -> int:
    """Return the weight of a machine whose neighbours are not known: what most nodes will find right."""
    return max(scale.least, min(scale.most, round(shares * scale.per_share)))


def weights(shares: Mapping[K, float], scale: WeightScale) -> dict[K, int]:
    """Return weights in proportion to shares.

    All are halved until the greatest is not too great: thus they change together, and seldom.
    """
    factor = float(scale.per_share)
    while shares and max(shares.values()) * factor > scale.most:
        factor /= 2
    return {key: max(scale.least, round(share * factor)) for key, share in shares.items()}


def is_step(before: int, now: int) -> bool:
    """Tell whether a weight has changed so much that it is written."""
    return abs(now - before) * _STEP > before
