"""Whether a machine is moved from the busiest cell to the idlest, as the load of cells changes.

A move costs the copying of the guest's memory, so it must help clearly, for a sustained time, and seldom happen. One
that has made things worse is undone, and its machine left alone for long. Called with what is measured now and with
what it returned last; it knows no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from virtfleet_api.virtual_machine_status import NumaPolicy
from virtfleet_node.core.numa.choose import fits
from virtfleet_node.core.numa.host import Host, Resident
from virtfleet_node.core.numa.ledger import Ledger

SMOOTHING_SECONDS: Final = 60.0
"""Loads are means over about so long: a compiler's burst is no reason to move."""

BUSY: Final = 0.7
"""Share of its CPUs in use from which a cell is busy; below, every guest gets what it wants where it is."""

GAP: Final = 0.25
"""The idlest cell must be less busy by this share of its CPUs."""

GAIN: Final = 0.1
"""The busier of both cells must become less busy by this share, or the move is not worth it."""

SUSTAINED_SECONDS: Final = 60.0
"""All that must have been so for this long; twice as long after a move that was undone, and again after each more."""

_MOST_DOUBLINGS: Final = 5
"""Load that comes in waves of minutes misleads anyone who looks at one wave; half an hour shows several."""

REST_SECONDS: Final = 120.0
"""Nothing is moved for this long after a move: the means must follow first."""

ALONE_SECONDS: Final = 1800.0
"""A machine that was moved stays for at least this long."""

REGRET: Final = 0.05
"""A move is undone when the cell that took the machine is busier by this share than the other was before."""

REGRET_SECONDS: Final = 600.0
"""Later, it is no longer the move that makes it so."""

PARDON_SECONDS: Final = 7200.0
"""A machine whose move was undone is left alone for this long."""


@dataclass(frozen=True)
class Move:
    """Move a machine, CPUs and memory, from one cell to another."""

    uid: str
    source: int
    target: int
    message: str


@dataclass(frozen=True)
class Moved:
    """The last move, as long as it may be undone."""

    move: Move
    at: float
    busy_before: float


@dataclass(frozen=True)
class Balance:
    """What is remembered from one look to the next."""

    at: float | None = None
    cells: Mapping[int, float] = field(default_factory=dict)
    """Mean share of each cell's CPUs that is in use."""
    machines: Mapping[str, float] = field(default_factory=dict)
    """Mean load of each machine, in CPUs."""
    uneven_since: float | None = None
    moved: Moved | None = None
    rest_until: float = 0.0
    undone: int = 0
    """Moves that were undone; one less for each that was not."""
    alone_until: Mapping[str, float] = field(default_factory=dict)


def rebalance(host: Host, residents: tuple[Resident, ...], balance: Balance, now: float) -> tuple[Balance, Move | None]:
    """Return what to remember, and the move to make now, if any; `now` is in seconds of any steady clock."""
    if len(host.cells) < 2:  # noqa: PLR2004 -- there is nowhere to move to
        return Balance(), None
    seen = _look(host, residents, balance, now)
    if now < seen.rest_until:
        return replace(seen, uneven_since=None), None
    if (undo := _undo(seen, residents)) is not None:
        return _made(seen, undo, now, PARDON_SECONDS, regret=False), undo
    move = _best(host, residents, seen, now)
    if move is None:
        return replace(seen, uneven_since=None), None
    since = now if seen.uneven_since is None else seen.uneven_since
    if now - since < SUSTAINED_SECONDS * 2.0 ** min(seen.undone, _MOST_DOUBLINGS):
        return replace(seen, uneven_since=since), None
    return _made(seen, move, now, ALONE_SECONDS, regret=True), move


def _look(host: Host, residents: Iterable[Resident], balance: Balance, now: float) -> Balance:
    """Return the memory with the means as they are now."""
    passed = 0.0 if balance.at is None else max(0.0, now - balance.at)
    weight = min(1.0, passed / SMOOTHING_SECONDS)

    def mean(before: float | None, found: float) -> float:
        return found if before is None else before + (found - before) * weight

    shares = {cell.number: cell.busy / len(cell.cpus) for cell in host.cells}
    loads = {resident.uid: resident.load for resident in residents if resident.load is not None}
    stood = balance.moved is not None and now - balance.moved.at > REGRET_SECONDS
    return replace(
        balance,
        at=now,
        moved=None if stood else balance.moved,
        undone=max(0, balance.undone - stood),
        cells={number: mean(balance.cells.get(number), share) for number, share in shares.items()},
        machines={uid: mean(balance.machines.get(uid), load) for uid, load in loads.items()},
        alone_until={uid: until for uid, until in balance.alone_until.items() if until > now},
    )


def _undo(balance: Balance, residents: Iterable[Resident]) -> Move | None:
    moved = balance.moved
    if moved is None:
        return None
    move = moved.move
    here = any(r.uid == move.uid and r.placement.cells == (move.target,) and not r.starting for r in residents)
    worse = balance.cells.get(move.target, 0.0) > moved.busy_before + REGRET
    if not here or not worse or balance.cells.get(move.source, 1.0) >= balance.cells.get(move.target, 0.0):
        return None
    text = f"Moved back from NUMA cell {move.target} to cell {move.source}: it had become busier than that was."
    return Move(move.uid, move.target, move.source, text)


def _best(host: Host, residents: tuple[Resident, ...], balance: Balance, now: float) -> Move | None:
    """Return the move that makes the busier of both cells least busy; of equal ones, that of the least memory."""
    source = max(host.cells, key=lambda cell: (balance.cells[cell.number], -cell.number))
    target = min(host.cells, key=lambda cell: (balance.cells[cell.number], cell.number))
    high, low = balance.cells[source.number], balance.cells[target.number]
    if high < BUSY or high - low < GAP:
        return None

    def after(resident: Resident) -> float:
        load = balance.machines[resident.uid]
        return max(high - load / len(source.cpus), low + load / len(target.cpus))

    ledger = Ledger(host, residents)
    able = [
        resident
        for resident in residents
        if resident.placement.cells == (source.number,)
        and is_movable(resident)
        and resident.uid in balance.machines
        and now >= balance.alone_until.get(resident.uid, 0.0)
        and after(resident) <= high - GAIN
        and fits(resident.wish, ledger, target)
    ]
    if not able:
        return None
    best = min(able, key=lambda r: (round(after(r), 2), r.wish.memory_bytes, r.uid))
    text = (
        f"Moved from NUMA cell {source.number}, {high:.0%} busy, to cell {target.number}, {low:.0%} busy, "
        "where it disturbs others less."
    )
    return Move(best.uid, source.number, target.number, text)


def is_movable(resident: Resident) -> bool:
    """Tell whether a machine may be moved: it lies on one cell by the node's choice, and nothing holds its memory."""
    wish, placement = resident.wish, resident.placement
    bound = placement.policy is NumaPolicy.BOUND and len(placement.cells) == 1
    return bound and wish.is_plain and not (wish.immovable or resident.starting)


def _made(balance: Balance, move: Move, now: float, alone: float, *, regret: bool) -> Balance:
    return replace(
        balance,
        uneven_since=None,
        moved=Moved(move, now, balance.cells[move.source]) if regret else None,
        rest_until=now + REST_SECONDS,
        undone=balance.undone + (not regret),
        alone_until={**balance.alone_until, move.uid: now + alone},
    )
