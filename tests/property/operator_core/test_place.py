"""Placement never promises too much, explains every refusal, and depends on nothing but its input."""

import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.report import NodeReport, PoolReport
from virtfleet_api.scheduling import Affinity, LabelSelector, MachineAffinity, MachineTerm, Taint
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.place import (
    Candidate,
    Load,
    Need,
    Neighbour,
    Neighbours,
    NodeView,
    Placed,
    PoolRoom,
    Strategy,
    Surroundings,
    Unschedulable,
    candidate,
    place,
)
from virtfleet_operator.core.placement.labels import selects, tolerates
from virtfleet_operator.core.placement.need import added
from virtfleet_operator.core.placement.sweep import Waiter, sweep

fleets = st.lists(st.from_type(Candidate), max_size=6, unique_by=lambda node: node.name)


def takes(room: PoolRoom | None, size: int) -> bool:
    return room is not None and not room.nearly_full and (room.left_bytes is None or size <= room.left_bytes)


def fits(need: Need, node: Candidate) -> bool:
    """Say it again in other words than the code under test."""
    return (
        node.unready == ""
        and need.node_selector.items() <= node.labels.items()
        and all(takes(node.pools.get(pool), size) for pool, size in need.pools.items())
        and all(node.name not in far for far in need.unreachable.values())
        and all(any(tolerates(t, taint) for t in need.tolerations) for taint in hard_taints(node))
        and (need.cpu_model == "host-model" or not node.cpu_models or need.cpu_model in node.cpu_models)
        and has_cpus(need, node)
        and has_memory(need, node)
        and need.vcpus * node.cpu_hz >= need.reserved_hz
    )


def hard_taints(node: Candidate) -> list[Taint]:
    return [taint for taint in node.taints if taint.effect == "NoSchedule"]


def has_cpus(need: Need, node: Candidate) -> bool:
    """Share out CPUs one by one: whole ones to those that ask for them, what is left of each to the others."""
    after = node.load + added(need)
    own = after.dedicated_cpus
    if need.dedicated and own > node.cpus - max(1, len(node.cells)):
        return False
    ratio = Fraction(node.vcpus, max(1, node.cpus))
    reserved = after.reserved_hz + own * node.cpu_hz
    asks = need.reserved_hz or (need.dedicated and node.cpu_hz)
    return after.vcpus - own <= node.vcpus - own * ratio and (not asks or reserved <= node.reserved_hz)


def has_memory(need: Need, node: Candidate) -> bool:
    if need.hugepage_bytes is None:
        return node.memory_bytes - node.load.memory_bytes >= need.memory_bytes
    room = node.hugepages.get(need.hugepage_bytes)
    taken = node.load.hugepages.get(need.hugepage_bytes, 0)
    return room is not None and need.memory_bytes <= min(room.total_bytes - taken, room.free_bytes)


@given(st.from_type(Need), fleets)
def test_a_machine_is_placed_if_and_only_if_a_node_fits(need: Need, nodes: list[Candidate]) -> None:
    fitting = {node.name for node in nodes if fits(need, node)}
    match place(need, nodes):
        case Placed(node_name=name):
            assert name in fitting
        case Unschedulable():
            assert not fitting


@given(st.from_type(Need), fleets, st.randoms())
def test_the_order_of_the_nodes_does_not_matter(need: Need, nodes: list[Candidate], random: Random) -> None:
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert place(need, shuffled) == place(need, nodes)


@given(st.from_type(Need), fleets.filter(bool))
def test_a_refusal_counts_every_node_once(need: Need, nodes: list[Candidate]) -> None:
    answer = place(need, [node for node in nodes if not fits(need, node)])
    if isinstance(answer, Unschedulable) and not answer.message.startswith("there is no node"):
        total = int(answer.message.removeprefix("0/").split(" ", 1)[0])
        counts = re.findall(r"(?:: |, )(\d+) ", answer.message)
        assert sum(map(int, counts)) == total == sum(not fits(need, node) for node in nodes)


@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 5))
def test_equal_machines_spread_evenly_over_equal_nodes_wherever_their_image_is(
    count: int, machines: int, holding: int
) -> None:
    around = Surroundings(holders={"u": {f"node-{n}" for n in range(holding)}})
    loads = {f"node-{n}": Load() for n in range(count)}
    for _ in range(machines):
        nodes = [Candidate(name, vcpus=100, memory_bytes=100, load=load) for name, load in loads.items()]
        answer = place(Need(1, 1, images=frozenset({"u"})), nodes, around)
        assert isinstance(answer, Placed)
        loads[answer.node_name] += Load(1, 1, 1)
    placed = Counter({name: load.machines for name, load in loads.items()})
    assert max(placed.values()) - min(placed.values()) <= 1


@given(st.lists(st.from_type(Need), max_size=20), fleets)
def test_no_node_is_ever_promised_more_than_it_has(needs: list[Need], nodes: list[Candidate]) -> None:
    loads = {node.name: Load() for node in nodes}
    for need in needs:
        answer = place(need, [replace(node, load=loads[node.name]) for node in nodes])
        if isinstance(answer, Placed):
            loads[answer.node_name] += added(need)
    for node in nodes:
        load = loads[node.name]
        shared = load.vcpus - load.dedicated_cpus
        assert shared <= node.vcpus
        assert load.dedicated_cpus == 0 or load.dedicated_cpus < node.cpus
        assert shared * node.cpus <= node.vcpus * (node.cpus - load.dedicated_cpus) or not load.dedicated_cpus
        assert load.memory_bytes <= node.memory_bytes
        assert load.reserved_hz + load.dedicated_cpus * node.cpu_hz <= node.reserved_hz or load == Load()
        assert all(size <= node.hugepages[page].total_bytes for page, size in load.hugepages.items())


loads = st.dictionaries(st.sampled_from(["default", "fast"]), st.integers(1, 9)).map(lambda disks: Load(disks=disks))


@given(loads, loads)
def test_what_is_added_to_a_load_can_be_taken_away_again(one: Load, other: Load) -> None:
    assert one + other - other == one
    assert one + other == other + one


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(1, 100))
def test_a_pool_with_a_limit_promises_it_to_the_last_byte_and_no_more(
    limit: int, committed: int, pending: int, asked: int
) -> None:
    report = NodeReport.model_construct(
        cpus=1,
        architecture="x86_64",
        cpu_frequency_hz=1,
        memory_bytes=1,
        hypervisor_connected=True,
        pools=(
            PoolReport(name="default", capacity_bytes=1, free_bytes=1, committed_bytes=committed, limit_bytes=limit),
        ),
    )
    node = VMNode.model_validate({"metadata": {"name": "a"}})
    seen = candidate(NodeView(node, report, heard=True, load=Load(disks={"default": pending})))
    answer = place(Need(1, 1, {"default": asked}), [seen])
    if committed + pending + asked <= limit:
        assert answer == Placed("a")
    else:
        assert answer == Unschedulable("0/1 nodes fit: 1 with too little room in pool default")


apps = st.sampled_from([{"app": "db"}, {"app": "web"}, {"app": "web", "tier": "gold"}])
terms = st.tuples(
    st.from_type(LabelSelector),
    st.sampled_from([(), ("shop",), ("shop", "bank")]),
    st.sampled_from(["kubernetes.io/hostname", "zone"]),
).map(lambda parts: MachineTerm(label_selector=parts[0], namespaces=parts[1], topology_key=parts[2]))
affinities = st.builds(
    Affinity,
    vm_affinity=st.none(),
    vm_anti_affinity=st.builds(MachineAffinity, required=st.lists(terms, max_size=2).map(tuple)),
)


@st.composite
def shy_needs(draw: st.DrawFn) -> Need:
    """What a small machine asks that may keep others away."""
    affinity = draw(st.none() | affinities)
    away = affinity.vm_anti_affinity.required if affinity and affinity.vm_anti_affinity else ()
    itself = Neighbour(draw(st.sampled_from(["shop", "bank"])), draw(apps), away)
    return replace(draw(st.from_type(Need)), affinity=affinity, itself=itself)


def selected(term: MachineTerm, owner: Neighbour, other: Neighbour) -> bool:
    return other.namespace in (term.namespaces or (owner.namespace,)) and selects(term.label_selector, other.labels)


def near(term: MachineTerm, one: Candidate, other: Candidate) -> bool:
    if term.topology_key == "kubernetes.io/hostname":
        return one.name == other.name
    value = one.labels.get(term.topology_key)
    return value is not None and value == other.labels.get(term.topology_key)


@given(st.lists(shy_needs(), max_size=12), fleets, st.sampled_from(Strategy))
def test_machines_that_keep_each_other_away_never_meet(
    needs: list[Need], nodes: list[Candidate], strategy: Strategy
) -> None:
    around = Surroundings(Neighbours(), strategy=strategy)
    placed: list[tuple[Need, Candidate]] = []
    for need in needs:
        answer = place(need, nodes, around)
        if isinstance(answer, Placed):
            node = next(n for n in nodes if n.name == answer.node_name)
            placed.append((need, node))
            around.neighbours.add(node.name, need.itself)
    for number, (need, node) in enumerate(placed):
        for other, other_node in placed[:number]:
            for owner, guest in ((need.itself, other.itself), (other.itself, need.itself)):
                for term in owner.keeps_away:
                    assert not (selected(term, owner, guest) and near(term, node, other_node))


@given(shy_needs(), shy_needs(), fleets)
def test_another_machine_never_makes_room(asked: Need, other: Need, nodes: list[Candidate]) -> None:
    around = Surroundings(Neighbours())
    for number in range(len(nodes)):
        alone = nodes[number : number + 1]
        before = place(asked, alone, around)
        fuller = [replace(node, load=node.load + added(other)) for node in alone]
        around.neighbours.add(alone[0].name, other.itself)
        after = place(asked, fuller, around)
        around.neighbours.remove(alone[0].name, other.itself)
        assert isinstance(before, Placed) or isinstance(after, Unschedulable)


@given(st.lists(st.tuples(st.sampled_from("abc"), shy_needs()), max_size=12), st.data())
def test_neighbours_are_counted_as_one_by_one(machines: list[tuple[str, Need]], data: st.DataObject) -> None:
    neighbours = Neighbours()
    for node, need in machines:
        neighbours.add(node, need.itself)
    gone = data.draw(st.integers(0, len(machines)))
    for node, need in machines[:gone]:
        neighbours.remove(node, need.itself)
    term, owner = data.draw(terms), Neighbour(data.draw(st.sampled_from(["shop", "bank"])))
    counted = Counter(node for node, need in machines[gone:] if selected(term, owner, need.itself))
    assert neighbours.near(term, owner.namespace) == counted
    asked = data.draw(shy_needs()).itself
    keep = {n for n, need in machines[gone:] if any(selected(t, need.itself, asked) for t in need.itself.keeps_away)}
    assert {node for _, nodes in neighbours.guards(asked) for node in nodes} == keep


@given(st.lists(shy_needs(), min_size=1, max_size=3), st.lists(st.integers(0, 2), max_size=60), fleets)
def test_waking_finds_all_that_fit_and_asks_once_for_what_is_refused(
    kinds: list[Need], waiting: list[int], nodes: list[Candidate]
) -> None:
    around = Surroundings(Neighbours())
    queue = tuple(Waiter(number, kinds[kind % len(kinds)], "") for number, kind in enumerate(waiting))
    refused: dict[str, str] = {}
    woken, looks, rest = set[int](), 0, queue
    while rest:
        found = sweep(rest, nodes, around, refused)
        assert found.looks <= 32
        assert len(found.rest) < len(rest)
        woken.update(found.fitting)
        looks, rest = looks + found.looks, found.rest
        assert not {key for key in found.outdated if key in woken}
    assert looks <= len(woken) + len(kinds)
    first = {kind % len(kinds): number for number, kind in reversed(list(enumerate(waiting)))}
    if first and len(queue) <= 32:
        assert (min(first.values()) in woken) == isinstance(place(queue[0].need, nodes, around), Placed)
