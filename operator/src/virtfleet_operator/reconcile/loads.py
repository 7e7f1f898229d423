"""What each node is promised, kept up to date as machines come, go and change, so that placing is cheap.

It counts every machine that is bound, and those whose binding is being written right now: two machines that are placed
at the same moment must not both get the last room.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_operator.core.devices import promised_devices
from virtfleet_operator.core.disk_sizes import missing_sizes
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.place import Load, load_of
from virtfleet_operator.kube.cache import Cache, Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import BY_CLASS, CLASS, MACHINE, UNBOUND, CacheCatalog, bound_node


class Loads:
    """The load of every node."""

    def __init__(self, cache: Cache, catalog: CacheCatalog) -> None:
        self._cache = cache
        self._catalog = catalog
        self._parts: dict[Key, tuple[str, Load]] = {}
        self._totals: defaultdict[str, Load] = defaultdict(Load)
        self._reserved: dict[Key, tuple[str, Load]] = {}
        cache.listen(self._take)

    def of(self, node: str) -> Load:
        """Return what the node is promised."""
        total = self._totals[node]
        for key, (where, load) in self._reserved.items():
            if where == node and self._parts.get(key, (UNBOUND,))[0] != node:
                total += load
        return total

    def others(self, node: str, key: Key) -> Load:
        """Return what the node is promised to all machines but one."""
        where, part = self._parts.get(key, (UNBOUND, Load()))
        return self.of(node) - part if where == node else self.of(node)

    @contextmanager
    def reserve(self, key: Key, node: str, load: Load) -> Iterator[None]:
        """Count a machine at a node while its binding is being written."""
        self._reserved[key] = (node, load)
        try:
            yield
        finally:
            del self._reserved[key]

    def _take(self, key: Key, _: Stored | None, new: Stored | None) -> None:
        if key.kind == MACHINE:
            self._count(key, new)
        elif key.kind == CLASS:
            for stored in self._cache.find(MACHINE, BY_CLASS, key.name):
                self._count(stored.key, stored)

    def _count(self, key: Key, stored: Stored | None) -> None:
        if old := self._parts.pop(key, None):
            self._totals[old[0]] -= old[1]
        node = bound_node(stored) if stored else UNBOUND
        if stored and node != UNBOUND:
            self._parts[key] = (node, self._load(stored))
            self._totals[node] += self._parts[key][1]

    def _load(self, stored: Stored) -> Load:
        vm = stored.resource
        if isinstance(vm, VirtualMachine):
            sizing = resolve(vm, self._catalog.class_of(vm))
            if isinstance(sizing, Sizing):
                return _at_least(
                    load_of(sizing, missing_sizes(vm, self._catalog), promised_devices(vm)),
                    running_load(stored.status),
                )
        return running_load(stored.status)


def _at_least(load: Load, running: Load) -> Load:
    """Return a load with the vCPUs and the memory that the guest still has, though it shall have less."""
    return replace(
        load, vcpus=max(load.vcpus, running.vcpus), memory_bytes=max(load.memory_bytes, running.memory_bytes)
    )


def running_load(status: VirtualMachineStatus) -> Load:
    """Return what a machine was last seen with."""
    if status.machine is None:
        return Load(machines=1)
    return Load(1, status.machine.vcpus.current, int(status.machine.memory.current))
