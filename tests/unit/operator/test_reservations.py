"""What nodes keep of their CPUs for machines: never more than they have, whatever is stored and whoever restarts."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.names import API_VERSION, FINALIZER, NODE_LABEL
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.growth import kept_reservation
from virtfleet_operator.core.room import Room
from virtfleet_operator.kube.cache import Cache, Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import INDEXERS, MACHINE, CacheCatalog
from virtfleet_operator.reconcile.loads import Loads

MHZ = 1_000_000
CAPACITY = 5600


class Node:
    """Two CPUs of 2.8 GHz, and the machines on them."""

    def __init__(self) -> None:
        self.cache = Cache(INDEXERS)
        self.version = 0
        self.start_operator()
        status = {"cpuFrequency": "2800MHz", "allocatable": {"cpus": 8, "reserved": f"{CAPACITY}MHz"}}
        self._put("VMNode", {"name": "one", "uid": "one"}, {}, status)

    def start_operator(self) -> None:
        """Forget what is in memory alone, and read all objects."""
        objects = [(kind, stored.body) for kind in ("VMNode", MACHINE, "VMClass") for stored in self.cache.all(kind)]
        self.cache = Cache(INDEXERS)
        self.catalog = CacheCatalog(self.cache)
        self.loads = Loads(self.cache, self.catalog)
        for kind, body in objects:
            self.cache.put(kind, body)

    def body(self, name: str, reserved: int, vcpus: int = 4, kept: int | None = None) -> dict[str, Any]:
        cpu: dict[str, Any] = {"cores": vcpus} | ({"reservation": f"{reserved}MHz"} if reserved else {})
        machine = {"uuid": name, "machineType": "q35", "cpuModel": "qemu64", "vcpus": {"current": 1, "max": 1}}
        memory = {"memory": {"current": "1Gi"}}
        status: dict[str, Any] = {"nodeName": "one"}
        if kept is not None:
            status["machine"] = machine | memory | ({"reservation": f"{kept}MHz"} if kept else {})
        metadata = {"name": name, "namespace": "shop", "uid": name, "labels": {NODE_LABEL: "one"}}
        metadata["finalizers"] = [FINALIZER]
        return {
            "apiVersion": API_VERSION,
            "kind": MACHINE,
            "metadata": metadata,
            "spec": {"memory": {"guest": "1Gi"}, "cpu": cpu},
            "status": status,
        }

    def store(self, name: str, reserved: int, vcpus: int = 4, kept: int | None = None) -> Stored:
        body = self.body(name, reserved, vcpus, kept)
        return self._put(MACHINE, body["metadata"], body["spec"], body["status"])

    def look(self, name: str, *, known: bool = True) -> tuple[int, str]:
        """Do what the operator does when it looks at a machine; return what is kept, in MHz, and what is said."""
        stored = self.cache.get(Key(MACHINE, "shop", name))
        assert stored is not None
        assert isinstance(stored.resource, VirtualMachine)
        sizing = resolve(stored.resource, self.catalog.class_of(stored.resource))
        assert isinstance(sizing, Sizing)
        room = Room("one", 99, 1 << 60, CAPACITY * MHZ - self.loads.others("one", stored.key).reserved_hz, 2800 * MHZ)
        hertz, said = kept_reservation(sizing, self.loads.reserved_hz(stored.key), room if known else None)
        self.loads.keep_reservation(stored.key, "one", hertz)
        return hertz // MHZ, said

    @property
    def promised(self) -> int:
        return self.loads.of("one").reserved_hz // MHZ

    def _put(self, kind: str, metadata: dict[str, Any], spec: Any, status: Any) -> Stored:
        self.version += 1
        found = metadata | {"resourceVersion": str(self.version), "generation": self.version}
        self.cache.put(
            kind, {"apiVersion": API_VERSION, "kind": kind, "metadata": found, "spec": spec, "status": status}
        )
        return next(s for s in self.cache.all(kind) if s.key.name == metadata["name"])


def test_a_raise_that_does_not_fit_keeps_the_former_reservation_until_there_is_room() -> None:
    node = Node()
    for name, kept in (("a", 700), ("b", 2800)):
        node.store(name, kept)
        assert node.look(name) == (kept, "")
    node.store("a", 3000, kept=700)
    kept, said = node.look("a")
    assert kept == 700
    assert said == (
        "spec.cpu.reservation: '3GHz' is more than node one has room for: "
        'write at most "2800MHz", or move other machines away'
    )
    assert node.promised == 3500
    node.store("b", 0, kept=2800)
    assert node.look("b") == (0, "")
    assert node.look("a")[0] == 700  # until the node has said that it keeps nothing for the other any more
    node.store("b", 0, kept=0)
    assert node.look("a") == (3000, "")
    assert node.promised == 3000


def test_nothing_more_is_kept_while_nothing_is_known_of_the_node() -> None:
    node = Node()
    node.store("a", 700, kept=500)
    kept, said = node.look("a", known=False)
    assert kept == 500
    assert said == "spec.cpu.reservation: what the machine's node can keep is not known yet"


def test_a_reservation_that_its_vcpus_cannot_use_is_refused() -> None:
    node = Node()
    node.store("a", 3000, vcpus=1, kept=0)
    kept, said = node.look("a")
    assert kept == 0
    assert said == (
        "spec.cpu.reservation: '3GHz' is more than its 1 vCPUs can use on node one: write at most \"2800MHz\""
    )


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.booleans()), max_size=12)


@given(steps)
def test_a_node_never_promises_more_than_it_has(steps: list[tuple[str, int, bool]]) -> None:
    node, told = Node(), dict.fromkeys("abc", 0)
    for name in told:
        node.store(name, 0, kept=0)
    for name, hundreds, restarts in steps:
        node.store(name, hundreds * 100, kept=told[name])
        if restarts:
            node.start_operator()
        told[name], _ = node.look(name)
        node.store(name, hundreds * 100, kept=told[name])
        assert sum(told.values()) == node.promised <= CAPACITY
