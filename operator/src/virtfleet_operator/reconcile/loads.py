"""What each node is promised, kept up to date as machines come, go and change, so that placing is cheap.

It counts every machine that is bound, and those whose binding is being written right now: two machines that are placed
at the same moment must not both get the last room.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_operator.core.devices import promised_devices
from virtfleet_operator.core.disk_sizes import missing_sizes
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.place import Load, Neighbour, Neighbours, load_of, neighbour
from virtfleet_operator.kube.cache import Cache, Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import BY_CLASS, CLASS, MACHINE, UNBOUND, CacheCatalog, bound_node


@dataclass(frozen=True, slots=True)
class _Part:
    """What one machine adds to a node."""

    node: str
    load: Load
    itself: Neighbour


class Loads:
    """The load of every node, and which machines it consists of."""

    def __init__(self, cache: Cache, catalog: CacheCatalog) -> None:
        self._cache = cache
        self._catalog = catalog
        self.neighbours = Neighbours()
        self._parts: dict[Key, _Part] = {}
        self._totals: defaultdict[str, Load] = defaultdict(Load)
        self._reserved: dict[Key, _Part] = {}
        self._kept: dict[Key, tuple[str, int]] = {}
        """What of its node's CPUs is reserved for each machine since it was looked at, in hertz."""
        cache.listen(self._take)

    def of(self, node: str) -> Load:
        """Return what the node is promised."""
        total = self._totals[node]
        for key, part in self._reserved.items():
            known = self._parts.get(key)
            if part.node == node and (known is None or known.node != node):
                total += part.load
        return total

    def others(self, node: str, key: Key) -> Load:
        """Return what the node is promised to all machines but one."""
        part = self._parts.get(key)
        return self.of(node) - part.load if part is not None and part.node == node else self.of(node)

    @contextmanager
    def reserve(self, key: Key, node: str, load: Load, itself: Neighbour) -> Iterator[None]:
        """Count a machine at a node while its binding is being written.

        As a neighbour it counts twice for a moment, which no question about neighbours minds.
        """
        self._reserved[key] = _Part(node, load, itself)
        self.neighbours.add(node, itself)
        self._kept[key] = (node, load.reserved_hz)
        try:
            yield
        finally:
            self.neighbours.remove(node, itself)
            del self._reserved[key]

    def reserved_hz(self, key: Key) -> int:
        """Return what is reserved for a machine at the node that it is bound to."""
        part = self._parts.get(key)
        return part.load.reserved_hz if part else 0

    def keep_reservation(self, key: Key, node: str, hertz: int) -> None:
        """Count from now on what is decided that the node keeps for a machine."""
        self._kept[key] = (node, hertz)
        self._count(key, self._cache.get(key))

    def _take(self, key: Key, _: Stored | None, new: Stored | None) -> None:
        if key.kind == MACHINE:
            self._count(key, new)
        elif key.kind == CLASS:
            for stored in self._cache.find(MACHINE, BY_CLASS, key.name):
                self._count(stored.key, stored)

    def _count(self, key: Key, stored: Stored | None) -> None:
        if old := self._parts.pop(key, None):
            self._totals[old.node] -= old.load
            self.neighbours.remove(old.node, old.itself)
        node = bound_node(stored) if stored else UNBOUND
        if stored is None:
            self._kept.pop(key, None)
        if stored and node != UNBOUND:
            part = self._parts[key] = _Part(node, self._load(stored), _itself(stored))
            self._totals[node] += part.load
            self.neighbours.add(node, part.itself)

    def _load(self, stored: Stored) -> Load:
        vm = stored.resource
        if isinstance(vm, VirtualMachine):
            sizing = resolve(vm, self._catalog.class_of(vm))
            if isinstance(sizing, Sizing):
                load = load_of(sizing, missing_sizes(vm, self._catalog), promised_devices(vm))
                kept = replace(load, reserved_hz=self._held(stored, load.reserved_hz))
                return _at_least(kept, running_load(stored.status))
        return running_load(stored.status)

    def _held(self, stored: Stored, asked_hz: int) -> int:
        """Return what its node keeps for a machine: as was decided, else as the node says, else as it was placed."""
        node, kept = self._kept.get(stored.key, (UNBOUND, 0))
        if node == bound_node(stored):
            return kept
        status: VirtualMachineStatus = stored.status
        return int(status.machine.reservation or 0) if status.machine else asked_hz


def _at_least(load: Load, running: Load) -> Load:
    """Return a load with what the guest still has of vCPUs, memory and CPU, though it shall have less.

    Memory in huge pages is not ordinary memory, and a dedicated CPU is reserved as a whole.
    """
    size, hertz = running.memory_bytes, running.reserved_hz
    return replace(
        load,
        vcpus=max(load.vcpus, running.vcpus),
        memory_bytes=0 if load.hugepages else max(load.memory_bytes, size),
        hugepages={page: max(promised, size) for page, promised in load.hugepages.items()},
        reserved_hz=0 if load.dedicated_cpus else max(load.reserved_hz, hertz),
    )


def _itself(stored: Stored) -> Neighbour:
    """Return a machine as others see it; one whose spec does not parse has labels all the same."""
    vm = stored.resource
    if isinstance(vm, VirtualMachine):
        return neighbour(vm)
    return Neighbour(stored.key.namespace, stored.meta.labels)


def running_load(status: VirtualMachineStatus) -> Load:
    """Return what a machine was last seen with."""
    if status.machine is None:
        return Load(machines=1)
    kept = int(status.machine.reservation or 0)
    return Load(1, status.machine.vcpus.current, int(status.machine.memory.current), reserved_hz=kept)
