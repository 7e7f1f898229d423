"""The host's NUMA cells and the machines on them: who lies where, and who is about to.

What is known of machines is in their domains; here is only what of it the others must see. All changes happen in one
thread and between two awaits, so machines that start at once see each other.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from virtfleet_api.machine import Hardware
from virtfleet_api.report import NumaCell
from virtfleet_api.virtual_machine_status import NumaPolicy
from virtfleet_node.core.numa.choose import Refused, choose_cells
from virtfleet_node.core.numa.host import Host, Resident, build_host, build_wish, own_cpus
from virtfleet_node.core.numa.load import mean_cpus, with_load
from virtfleet_node.core.numa.pins import Pinning, build_pinning, follow_affinity
from virtfleet_node.core.numa.placement import Placement
from virtfleet_node.core.observed import ObservedDomain

_WEIGHT: Final = 1 / 6
"""Of one look among the means that are told: looks are ten seconds apart, and a burst of some seconds is no news."""


class Cells:
    """Everything that machines need to know of each other and of the host's cells."""

    def __init__(self, read: Callable[[], tuple[NumaCell, ...]] = tuple) -> None:
        """Take what reads the cells, which blocks for a moment; without any there is no placement."""
        self._read = read
        self.found = read()
        self._busy: Mapping[int, float] = {}
        self._mean_busy: Mapping[int, float] = {}
        self.loads: Mapping[str, float] = {}
        """CPUs' worth of work of machines, as last measured."""
        self._residents: dict[str, Resident] = {}
        self._starting: set[str] = set()
        self._owned: frozenset[int] = frozenset()
        self._tell: Callable[[], None] = _nobody

    def subscribe(self, tell: Callable[[], None]) -> None:
        """Have it told when CPUs have become somebody's own, or have ceased to be: others must make room, or may."""
        self._tell = tell

    @property
    def host(self) -> Host:
        """Return the host as it was last looked at."""
        return build_host(self.found, self._busy)

    @property
    def residents(self) -> tuple[Resident, ...]:
        """Return the machines that lie on the host, with their loads."""
        return tuple(replace(resident, load=self.loads.get(uid)) for uid, resident in self._residents.items())

    async def look(self) -> None:
        """Look at the cells' memory and huge pages."""
        self.found = with_load(await asyncio.to_thread(self._read), self._mean_busy)

    def take_load(self, busy: Mapping[int, float]) -> None:
        """Take note of the CPUs' worth of work in each cell; decided by what is now, told by means."""
        self._busy, self._mean_busy = busy, mean_cpus(self._mean_busy, busy, _WEIGHT)

    def see(self, uid: str, desired: Hardware, domain: ObservedDomain) -> None:
        """Take note of where a machine is, as its domain shows it."""
        host, stored = self.host, domain.stored
        if not host.cells or (not domain.active and uid in self._starting):
            return
        if not domain.active or stored is None:
            self.forget(uid)
            return
        started = stored.started or desired
        affinity = started.affinity if "affinity" in desired.deferred else desired.affinity
        memory = max(started.memory_bytes, desired.memory_bytes)  # it may be given more while it runs
        wish = build_wish(started.model_copy(update={"affinity": affinity, "memory_bytes": memory}))
        placement = follow_affinity(wish, stored.placement or _everywhere(host), host)
        self._keep(Resident(uid, wish, placement))

    def offer(self, uid: str, hardware: Hardware) -> Placement | Refused | None:
        """Return where a machine would be started now; None on a host without cells."""
        host = self.host
        if not host.cells:
            return None
        return choose_cells(build_wish(hardware), host, self._others(uid))

    def reserve(self, uid: str, hardware: Hardware) -> Placement | Refused | None:
        """Return where a machine is started, and keep the place for it until `release`."""
        placement = self.offer(uid, hardware)
        if isinstance(placement, Placement):
            self._starting.add(uid)
            self._keep(Resident(uid, build_wish(hardware), placement, starting=True))
        return placement

    def release(self, uid: str) -> None:
        """End a start: from now on the machine is where its domain shows it."""
        self._starting.discard(uid)

    def forget(self, uid: str) -> None:
        """Take note that a machine is off, or gone."""
        if self._residents.pop(uid, None) is not None:
            self._look_at_owned()

    def placement(self, uid: str) -> Placement | None:
        """Return where a machine lies."""
        resident = self._residents.get(uid)
        return resident.placement if resident else None

    def pinning(self, uid: str) -> Pinning | None:
        """Return where the threads of a machine shall run; None of one that is off, or on a host without cells."""
        resident = self._residents.get(uid)
        if resident is None:
            return None
        others = tuple(other for other in self._residents.values() if other is not resident)
        return build_pinning(resident.wish, resident.placement, self.host, others)

    def _others(self, uid: str) -> tuple[Resident, ...]:
        return tuple(resident for resident in self.residents if resident.uid != uid)

    def _keep(self, resident: Resident) -> None:
        self._residents[resident.uid] = resident
        self._look_at_owned()

    def _look_at_owned(self) -> None:
        owned = own_cpus(self._residents.values())
        if owned != self._owned:
            self._owned = owned
            self._tell()


def _everywhere(host: Host) -> Placement:
    """Return the place of a machine that was started without one."""
    policy = NumaPolicy.BOUND if len(host.cells) == 1 else NumaPolicy.SPREAD
    return Placement(policy=policy, cells=tuple(cell.number for cell in host.cells))


def _nobody() -> None:
    """Tell nobody."""
