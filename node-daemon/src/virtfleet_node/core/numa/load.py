"""How busy CPUs, cells and machines are, from counters that only grow; and what of it is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from virtfleet_api.report import NumaCell
from virtfleet_node.core.numa.cpu_set import parse_cpus

FREE_PARTS: Final = 20
"""Free memory is told again when it has moved by this part of the cell's memory: 5 %, as the free space of pools."""

LOAD_STEP: Final = 20
"""The load is told again when it has moved by so many per cent: an idle host tells nothing, a busy one seldom."""


@dataclass(frozen=True)
class CpuTimes:
    """What a CPU has done since the host was started, in any unit of time."""

    busy: float
    idle: float


def busy_cpus(
    cells: tuple[NumaCell, ...], before: Mapping[int, CpuTimes], now: Mapping[int, CpuTimes]
) -> dict[int, float]:
    """Return how many CPUs' worth of work was done in each cell from one look to the next."""
    return {cell.cell: sum(_busy(before.get(cpu), now.get(cpu)) for cpu in parse_cpus(cell.cpus)) for cell in cells}


def _busy(before: CpuTimes | None, now: CpuTimes | None) -> float:
    if before is None or now is None:
        return 0.0
    busy, idle = max(0.0, now.busy - before.busy), max(0.0, now.idle - before.idle)
    return busy / (busy + idle) if busy + idle else 0.0


def loads(before: Mapping[str, float], now: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return the load of each machine, in CPUs, from its CPU time at two looks; of one that is new nothing is known."""
    if seconds <= 0:
        return {}
    return {uid: max(0.0, time - before[uid]) / seconds for uid, time in now.items() if uid in before}


def mean_cpus(before: Mapping[int, float], now: Mapping[int, float], weight: float) -> dict[int, float]:
    """Return running means, of which what is seen now gets this weight; a cell that is new begins with it."""
    return {cell: (mean := before.get(cell, busy)) + (busy - mean) * weight for cell, busy in now.items()}


def with_load(cells: tuple[NumaCell, ...], busy: Mapping[int, float]) -> tuple[NumaCell, ...]:
    """Return the cells with how busy they are."""
    return tuple(cell.model_copy(update={"load_percent": _percent(cell, busy.get(cell.cell, 0.0))}) for cell in cells)


def _percent(cell: NumaCell, busy: float) -> int:
    cpus = len(parse_cpus(cell.cpus))
    return min(100, round(100 * busy / cpus)) if cpus else 0


def steady_cells(told: tuple[NumaCell, ...], now: tuple[NumaCell, ...]) -> tuple[NumaCell, ...]:
    """Return the cells with the figures that were told before, where those have not moved by a step."""
    before = {cell.cell: cell for cell in told}
    return tuple(_steady(before.get(cell.cell), cell) for cell in now)


def _steady(told: NumaCell | None, now: NumaCell) -> NumaCell:
    if told is None:
        return now
    update: dict[str, object] = {}
    if abs(told.free_bytes - now.free_bytes) * FREE_PARTS < now.memory_bytes:
        update["free_bytes"] = told.free_bytes
    if abs(told.load_percent - now.load_percent) < LOAD_STEP:
        update["load_percent"] = told.load_percent
    return now.model_copy(update=update)
