"""What each machine may have of the CPUs that several want, in hertz.

Linux knows weights and caps, and no reservation. So the daemon works out what each machine is entitled to, and has the
kernel's weights say that. Water is filled in: nobody is below its reservation if it wants that much, the rest goes by
shares, nobody is above its limit or its demand, and nothing is left over while somebody wants it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final, TypeVar

K = TypeVar("K")

_NEGLIGIBLE: Final = 1000.0
"""Where all is reserved, and taken, the others together keep this part of the CPUs."""


@dataclass(frozen=True)
class Claim:
    """What a machine asks of its CPUs. All but the shares are in hertz."""

    shares: float
    """Greater than 0; only their proportions count."""
    ceiling: float
    """Its limit, or what its vCPUs can use, whichever is less."""
    demand: float = inf
    reservation: float = 0.0

    @property
    def bound(self) -> float:
        """Return the most that it is given."""
        return max(0.0, min(self.demand, self.ceiling))

    @property
    def floor(self) -> float:
        """Return the least that it is given: what it has reserved, and wants."""
        return min(self.reservation, self.bound)

    def at(self, level: float, part: float) -> float:
        """Return what it is given when a share is worth `level`, and `part` of all reservations can be kept."""
        return min(self.bound, max(self.floor * part, self.shares * level))


def entitlements(capacity: float, claims: Mapping[K, Claim]) -> dict[K, float]:
    """Return what each machine is entitled to. Reservations beyond the capacity are cut in proportion."""
    level, part = _level(capacity, claims.values()), _part(capacity, claims.values())
    return {key: claim.at(level, part) for key, claim in claims.items()}


def raised_shares(capacity: float, claims: Mapping[K, Claim]) -> dict[K, float]:
    """Return the shares under which a kernel that knows shares alone gives each machine what it is entitled to.

    They are the shares as they are, except of a machine whose reservation is more than its shares give it. Those of a
    machine that has all it wants cost the others nothing: they are what it would need if all wanted all, so that it
    has its reservation at once when it wakes.
    """
    greedy = {key: replace(claim, demand=inf) for key, claim in claims.items()}
    level, part = _least_level(capacity, claims.values()), _part(capacity, claims.values())
    level_of_all, part_of_all = _least_level(capacity, greedy.values()), _part(capacity, greedy.values())
    raised = {}
    for key, claim in claims.items():
        wants_more = claim.at(level, part) < claim.bound
        reserved = claim.floor * part / level if wants_more else greedy[key].floor * part_of_all / level_of_all
        raised[key] = max(claim.shares, reserved)
    return raised


def _least_level(capacity: float, claims: Collection[Claim]) -> float:
    """Return what a share is worth, where all is reserved a little: no weight is without end."""
    return max(_level(capacity, claims), capacity / sum(claim.shares for claim in claims) / _NEGLIGIBLE)


def _part(capacity: float, claims: Iterable[Claim]) -> float:
    """Return how much of each reservation can be kept; 1 unless more is reserved than there is."""
    reserved = sum(claim.floor for claim in claims)
    return min(1.0, capacity / reserved) if reserved > 0 else 1.0


def _level(capacity: float, claims: Iterable[Claim]) -> float:
    """Return what a share is worth, so that all is given; infinity when there is enough for all.

    What is given grows with the level: a machine's begins to grow where its shares reach its reservation, and ends
    where they reach what it can use.
    """
    claims = tuple(claims)
    given = sum(claim.floor for claim in claims)
    if given >= capacity and claims:
        return 0.0
    turns = [(claim.floor / claim.shares, claim.shares) for claim in claims]
    turns += [(claim.bound / claim.shares, -claim.shares) for claim in claims]
    before, slope = 0.0, 0.0
    for level, change in sorted(turns):
        step = slope * (level - before)
        if given + step >= capacity and slope > 0:
            return before + (capacity - given) / slope
        given, before, slope = given + step, level, slope + change
    return inf
