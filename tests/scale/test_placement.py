"""Ten thousand machines on two hundred nodes are placed in bounded time, and five thousand that wait cost little.

`pytest tests/scale -s` shows the figures, which docs/performance.md quotes. Nothing is started: the choice alone is
measured.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from virtfleet_api.scheduling import Affinity, LabelSelector, MachineAffinity, MachineTerm, PreferredMachines
from virtfleet_operator.core.place import Candidate, Need, Neighbour, Placed, Surroundings, place
from virtfleet_operator.core.placement.candidate import with_machine
from virtfleet_operator.core.placement.sweep import Waiter, sweep

pytestmark = pytest.mark.alone

NODES = 200
MACHINES = 10_000
WAITING = 5_000
PLACED_SECONDS = 120.0
"""A loose bound: it takes a tenth of this on an idle machine, and tests share their machine with others."""
SWEPT_SECONDS = 10.0

GIB = 1 << 30


def nodes() -> dict[str, Candidate]:
    return {
        f"node-{n:03}": Candidate(
            f"node-{n:03}",
            labels={"zone": f"zone-{n % 4}"},
            vcpus=256,
            memory_bytes=512 * GIB,
            cpus=64,
            architecture="x86_64",
        )
        for n in range(NODES)
    }


def machine(number: int) -> Need:
    """Return a machine; every fourth keeps away from its like, every tenth would like to be near others."""
    labels = {"app": f"app-{number % 400}", "id": str(number)}
    like = MachineTerm(label_selector=LabelSelector(match_labels={"app": labels["app"]}))
    affinity = None
    if number % 4 == 0:
        affinity = Affinity(vm_anti_affinity=MachineAffinity(required=(like,)))
    elif number % 10 == 1:
        near = like.model_copy(update={"topology_key": "zone"})
        affinity = Affinity(vm_affinity=MachineAffinity(preferred=(PreferredMachines(weight=10, term=near),)))
    away = affinity.vm_anti_affinity.required if affinity and affinity.vm_anti_affinity else ()
    return Need(4, 8 * GIB, affinity=affinity, itself=Neighbour("default", labels, away))


def test_ten_thousand_machines_are_placed_on_two_hundred_nodes(show: Callable[[str], None]) -> None:
    fleet, around, places = nodes(), Surroundings(), dict[int, str]()
    begun = time.process_time()
    for number in range(MACHINES):
        asked = machine(number)
        answer = place(asked, fleet.values(), around)
        assert isinstance(answer, Placed)
        places[number] = answer.node_name
        fleet[answer.node_name] = with_machine(fleet[answer.node_name], asked)
        around.neighbours.add(answer.node_name, asked.itself)
    took = time.process_time() - begun
    show(f"{MACHINES} machines placed on {NODES} nodes in {took:.1f} s, {took / MACHINES * 1000:.2f} ms each")
    apart = Counter((number % 400, name) for number, name in places.items() if number % 4 == 0)
    assert max(apart.values()) == 1
    assert took < PLACED_SECONDS


def test_five_thousand_machines_that_wait_cost_little_when_one_node_changes(show: Callable[[str], None]) -> None:
    fleet = {name: replace(node, unready="in maintenance") for name, node in nodes().items()}
    told = f"0/{NODES} nodes fit: {NODES} in maintenance"
    waiting = [Waiter(n, replace(machine(3), memory_bytes=(8 + n % 3) * GIB), told) for n in range(WAITING)]
    fleet["node-007"] = replace(fleet["node-007"], unready="", memory_bytes=64 * GIB)
    begun, looks, woken = time.process_time(), 0, list[int]()
    rest, refused = tuple(waiting), dict[str, str]()
    while rest:
        found = sweep(rest, fleet.values(), Surroundings(), refused)
        for number in found.fitting:  # as if each were placed at once
            fleet["node-007"] = with_machine(fleet["node-007"], waiting[number].need)
        woken.extend(found.fitting)
        looks, rest = looks + found.looks, found.rest
    took = time.process_time() - begun
    show(f"{WAITING} machines wait, one node comes: {looks} looks in {took * 1000:.0f} ms, {len(woken)} woken")
    assert woken == list(range(7))  # 8, 9, 10, 8, 9, 10 and 8 GiB
    assert looks == len(woken) + 3
    assert took < SWEPT_SECONDS
