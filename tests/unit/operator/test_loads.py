"""What nodes are promised, and who waits for room, as objects come, change and go."""

from typing import Any

from virtfleet_api.scheduling import MachineTerm
from virtfleet_operator.core.place import Candidate, Load, Need, Neighbour, Surroundings
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import INDEXERS, MACHINE, CacheCatalog
from virtfleet_operator.reconcile.loads import Loads
from virtfleet_operator.reconcile.unplaced import RESTATE_SECONDS, RESTATED_AT_ONCE, Unplaced

MIB = 1 << 20
WEB = MachineTerm.model_validate({"labelSelector": {"matchLabels": {"app": "web"}}})


def machine(name: str, node: str = "", version: int = 1, *, created: int = 0, **more: Any) -> dict[str, Any]:
    labels = {"app": "web"} | ({"virtfleet.io/node": node} if node else {})
    meta = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": f"{version}", "labels": labels}
    meta["creationTimestamp"] = f"2026-11-23T10:{created // 60:02}:{created % 60:02}Z"
    return {"metadata": meta, "spec": {"memory": {"guest": "32Mi"}} | more.pop("spec", {}), **more}


def build() -> tuple[Cache, Loads]:
    cache = Cache(INDEXERS)
    return cache, Loads(cache, CacheCatalog(cache))


def test_huge_pages_and_dedicated_cpus_are_not_counted_as_what_is_shared() -> None:
    cache, loads = build()
    spec = {"cpu": {"cores": 2, "dedicated": True}, "memory": {"guest": "32Mi", "hugepages": "2Mi"}}
    sizes = {"vcpus": {"current": 2, "max": 2}, "memory": {"current": "64Mi"}}
    status = {"machine": {"uuid": "u", "machineType": "q35", "cpuModel": "EPYC", "reservation": "1GHz", **sizes}}
    cache.put(MACHINE, machine("huge", "a", spec=spec, status=status))
    assert loads.of("a") == Load(1, 2, 0, dedicated_cpus=2, hugepages={2 * MIB: 64 * MIB})
    cache.remove(Key(MACHINE, "shop", "huge"), "huge")
    assert loads.of("a") == Load()


def test_neighbours_follow_machines_and_those_that_are_being_bound() -> None:
    cache, loads = build()
    cache.put(MACHINE, machine("one", "a"))
    cache.put(MACHINE, machine("two"))
    assert loads.neighbours.near(WEB, "shop") == {"a": 1}
    with loads.reserve(Key(MACHINE, "shop", "two"), "b", Load(1), Neighbour("shop", {"app": "web"})):
        assert loads.neighbours.near(WEB, "shop") == {"a": 1, "b": 1}
    assert loads.neighbours.near(WEB, "shop") == {"a": 1}
    cache.put(MACHINE, machine("one", "b", 2))
    assert loads.neighbours.near(WEB, "shop") == {"b": 1}
    cache.remove(Key(MACHINE, "shop", "one"), "one")
    assert loads.neighbours.near(WEB, "shop") == {}


async def test_the_oldest_are_woken_and_only_those_that_fit() -> None:
    cache, _ = build()
    unplaced, told = Unplaced(), "0/1 nodes fit: 1 with too little free memory"
    for number in range(6):
        cache.put(MACHINE, machine(f"vm-{number}", created=60 - number))
        if number:
            unplaced.wait(Key(MACHINE, "shop", f"vm-{number}"), Need(1, 4), told)
    node = Candidate("a", vcpus=9, memory_bytes=9, cpus=9)
    keys, again = await unplaced.look(cache, lambda: [node], Surroundings())
    assert [key.name for key in keys] == ["vm-0", "vm-5", "vm-4"]  # vm-0 waits for something else
    assert again is None
    unplaced.forget(Key(MACHINE, "shop", "vm-5"))
    keys, _ = await unplaced.look(cache, lambda: [node], Surroundings())
    assert {key.name for key in keys} == {"vm-0", "vm-5", "vm-4", "vm-3"}


async def test_another_reason_is_told_to_a_few_at_a_time() -> None:
    cache, _ = build()
    unplaced = Unplaced()
    for number in range(3 * RESTATED_AT_ONCE):
        cache.put(MACHINE, machine(f"vm-{number}", created=number))
        unplaced.wait(Key(MACHINE, "shop", f"vm-{number}"), Need(1, 4), "0/1 nodes fit: 1 not ready")
    full = [Candidate("a", vcpus=9, memory_bytes=1, cpus=9)]
    keys, again = await unplaced.look(cache, lambda: full, Surroundings())
    assert [key.name for key in keys] == [f"vm-{number}" for number in range(RESTATED_AT_ONCE)]
    assert again == RESTATE_SECONDS
