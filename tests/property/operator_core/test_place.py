"""Placement never promises too much, explains every refusal, and depends on nothing but its input."""

import re
from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.report import NodeReport, PoolReport
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.place import (
    Candidate,
    Load,
    Need,
    NodeView,
    Placed,
    PoolRoom,
    Unschedulable,
    candidate,
    place,
)

fleets = st.lists(st.from_type(Candidate), max_size=6, unique_by=lambda node: node.name)


def takes(room: PoolRoom | None, size: int) -> bool:
    return room is not None and not room.nearly_full and (room.left_bytes is None or size <= room.left_bytes)


def fits(need: Need, node: Candidate) -> bool:
    """Say it again in other words than the code under test."""
    return (
        node.unready == ""
        and need.node_selector.items() <= node.labels.items()
        and all(takes(node.pools.get(pool), size) for pool, size in need.pools.items())
        and node.vcpus - node.load.vcpus >= need.vcpus
        and node.memory_bytes - node.load.memory_bytes >= need.memory_bytes
        and (not need.reserved_hz or node.reserved_hz - node.load.reserved_hz >= need.reserved_hz)
        and need.vcpus * node.cpu_hz >= need.reserved_hz
    )


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


@given(st.integers(1, 5), st.integers(1, 20))
def test_equal_machines_spread_evenly_over_equal_nodes(count: int, machines: int) -> None:
    loads = {f"node-{n}": Load() for n in range(count)}
    for _ in range(machines):
        nodes = [Candidate(name, vcpus=100, memory_bytes=100, load=load) for name, load in loads.items()]
        answer = place(Need(1, 1), nodes)
        assert isinstance(answer, Placed)
        loads[answer.node_name] += Load(1, 1, 1)
    placed = Counter({name: load.machines for name, load in loads.items()})
    assert max(placed.values()) - min(placed.values()) <= 1


@given(st.lists(st.from_type(Need), max_size=20), fleets)
def test_no_node_is_ever_promised_more_than_it_has(needs: list[Need], nodes: list[Candidate]) -> None:
    loads = {node.name: Load() for node in nodes}
    for need in needs:
        views = [Candidate(n.name, n.unready, n.labels, n.pools, n.vcpus, n.memory_bytes, loads[n.name]) for n in nodes]
        answer = place(need, views)
        if isinstance(answer, Placed):
            loads[answer.node_name] += Load(1, need.vcpus, need.memory_bytes)
    for node in nodes:
        assert loads[node.name].vcpus <= node.vcpus
        assert loads[node.name].memory_bytes <= node.memory_bytes


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
