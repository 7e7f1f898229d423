"""Where machines may run: selectors, taints, affinity, CPU models, huge pages, scores, and the words of refusals."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from virtfleet_api.report import Hugepages, NodeReport, NumaCell
from virtfleet_api.scheduling import Affinity, SelectorRequirement, Taint, Toleration
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.place import (
    Candidate,
    HugepageRoom,
    Load,
    Need,
    Neighbour,
    NodeView,
    Placed,
    Strategy,
    Surroundings,
    Unschedulable,
    allocatable,
    candidate,
    load_of,
    need,
    place,
)
from virtfleet_operator.core.placement.candidate import Cell
from virtfleet_operator.core.placement.labels import meets, tolerates

MIB2 = 2 << 20


def node(name: str = "a", **more: Any) -> Candidate:
    return Candidate(name, **{"vcpus": 40, "memory_bytes": 100, "cpus": 10, "cpu_hz": 1, "reserved_hz": 10, **more})


def affinity(**parts: Any) -> Affinity:
    return Affinity.model_validate(parts)


def refused(asked: Need, *nodes: Candidate, around: Surroundings | None = None) -> str:
    answer = place(asked, nodes, around)
    assert isinstance(answer, Unschedulable), answer
    return answer.message


@pytest.mark.parametrize(
    ("operator", "values", "labels", "holds"),
    [
        ("In", ["a", "b"], {"k": "b"}, True),
        ("In", ["a"], {"k": "b"}, False),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "b"}, True),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", [], {"k": ""}, True),
        ("Exists", [], {}, False),
        ("DoesNotExist", [], {}, True),
        ("DoesNotExist", [], {"k": "a"}, False),
    ],
)
def test_labels_are_compared_as_kubernetes_does(
    operator: str, values: list[str], labels: dict[str, str], *, holds: bool
) -> None:
    asked = SelectorRequirement.model_validate({"key": "k", "operator": operator, "values": values})
    assert meets(asked, labels) == holds


@pytest.mark.parametrize(
    ("toleration", "holds"),
    [
        ({"key": "gpu", "value": "a10"}, True),
        ({"key": "gpu", "value": "a10", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu"}, False),
        ({"key": "gpu", "value": "t4"}, False),
        ({"key": "cpu", "operator": "Exists"}, False),
        ({"key": "gpu", "value": "a10", "effect": "PreferNoSchedule"}, False),
        ({"value": "a10"}, False),
    ],
)
def test_a_taint_is_tolerated(toleration: dict[str, str], *, holds: bool) -> None:
    taint = Taint.model_validate({"key": "gpu", "value": "a10", "effect": "NoSchedule"})
    assert tolerates(Toleration.model_validate(toleration), taint) == holds


EAST = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["east"]}]}
GPU = Taint.model_validate({"key": "gpu", "value": "a10", "effect": "NoSchedule"})
OLD = Taint.model_validate({"key": "old", "effect": "PreferNoSchedule"})
PAGES = {MIB2: HugepageRoom(total_bytes=64 * MIB2, free_bytes=32 * MIB2)}


@pytest.mark.parametrize(
    ("asked", "offered", "said"),
    [
        (Need(1, 1), node(unready="in maintenance"), "1 in maintenance"),
        (Need(1, 1, node_name="b"), node(), "1 without the disk that it is made from"),
        (Need(1, 1, affinity=affinity(nodeAffinity={"required": [EAST]})), node(), "1 not matching nodeAffinity"),
        (Need(1, 1), node(taints=(GPU,)), "1 with taint gpu=a10"),
        (Need(1, 1), node(architecture="aarch64"), "1 with architecture aarch64"),
        (Need(1, 1, cpu_model="EPYC"), node(cpu_models=frozenset({"Nehalem"})), "1 unable to give CPU model EPYC"),
        (Need(1, 1, hugepage_bytes=MIB2), node(), "1 without huge pages of 2Mi"),
        (Need(1, 33 * MIB2, hugepage_bytes=MIB2), node(hugepages=PAGES), "1 with too few free huge pages of 2Mi"),
        (
            Need(1, 9 * MIB2, hugepage_bytes=MIB2),
            node(hugepages=PAGES, load=Load(hugepages={MIB2: 56 * MIB2})),
            "1 with too few free huge pages of 2Mi",
        ),
        (Need(10, 1, dedicated=True), node(), "1 with too few CPUs to dedicate"),
        (Need(9, 1, dedicated=True), node(cells=(Cell(5, 50), Cell(5, 50))), "1 with too few CPUs to dedicate"),
        (Need(1, 1, dedicated=True), node(load=Load(1, 37)), "1 with too few free vCPUs"),
        (Need(1, 1, dedicated=True), node(load=Load(reserved_hz=10)), "1 with too little unreserved CPU"),
        (Need(1, 1, reserved_hz=1), node(load=Load(1, 9, dedicated_cpus=9, reserved_hz=1)), "1 with too little unres"),
    ],
)
def test_a_refusal_has_its_words(asked: Need, offered: Candidate, said: str) -> None:
    assert refused(asked, offered).startswith(f"0/1 nodes fit: {said}")


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        (Need(1, 1, affinity=affinity(nodeAffinity={"required": [EAST]})), node(labels={"zone": "east"})),
        (Need(1, 1, tolerations=(Toleration(key="gpu", value="a10"),)), node(taints=(GPU,))),
        (Need(1, 1), node(taints=(OLD,))),
        (Need(1, 1, cpu_model="EPYC"), node()),
        (Need(1, 1, cpu_model="EPYC"), node(cpu_models=frozenset({"EPYC"}))),
        (Need(1, 1), node(cpu_models=frozenset({"EPYC"}))),
        (Need(1, 32 * MIB2, hugepage_bytes=MIB2), node(hugepages=PAGES)),
        (Need(9, 1, dedicated=True), node()),
        (Need(4, 1), node(load=Load(9, 9, dedicated_cpus=9))),
    ],
)
def test_what_is_wished_and_there_is_given(asked: Need, offered: Candidate) -> None:
    assert place(asked, [offered]) == Placed("a")


def test_a_dedicated_cpu_is_no_ones_else() -> None:
    full = node(load=Load(9, 9, dedicated_cpus=9))
    assert refused(Need(5, 1), full) == "0/1 nodes fit: 1 with too few free vCPUs"


def neighbours(*machines: tuple[str, Neighbour]) -> Surroundings:
    around = Surroundings()
    for where, machine in machines:
        around.neighbours.add(where, machine)
    return around


DB = {"labelSelector": {"matchLabels": {"app": "db"}}}
ZONE = {**DB, "topologyKey": "zone"}
DATABASE = Neighbour("shop", {"app": "db"})
ZONES = (node("a", labels={"zone": "east"}), node("b", labels={"zone": "east"}), node("c", labels={"zone": "west"}))


def wants(itself: Neighbour | None = None, **parts: Any) -> Need:
    return Need(1, 1, affinity=affinity(**parts), itself=itself or Neighbour("shop", {"app": "web"}))


def test_machines_that_are_wanted_near() -> None:
    around = neighbours(("b", DATABASE))
    assert place(wants(vmAffinity={"required": [DB]}), ZONES, around) == Placed("b")
    assert place(wants(vmAffinity={"required": [ZONE]}), ZONES, around) == Placed("a")
    assert refused(wants(vmAffinity={"required": [DB]}), *ZONES) == (
        "0/3 nodes fit: 3 not near the machines of its vmAffinity"
    )
    elsewhere = neighbours(("b", replace(DATABASE, namespace="bank")))
    assert refused(wants(vmAffinity={"required": [DB]}), *ZONES, around=elsewhere)
    named = {**DB, "namespaces": ["bank"]}
    assert place(wants(vmAffinity={"required": [named]}), ZONES, elsewhere) == Placed("b")


def test_the_first_of_machines_that_seek_each_other_goes_anywhere() -> None:
    asked = wants(DATABASE, vmAffinity={"required": [ZONE]})
    assert place(asked, ZONES) == Placed("a")
    assert place(asked, ZONES, neighbours(("c", DATABASE))) == Placed("c")
    assert refused(asked, node("d")) == "0/1 nodes fit: 1 not near the machines of its vmAffinity"


def test_machines_that_are_wanted_far() -> None:
    around = neighbours(("a", DATABASE))
    assert place(wants(vmAntiAffinity={"required": [DB]}), ZONES, around) == Placed("b")
    assert place(wants(vmAntiAffinity={"required": [ZONE]}), ZONES, around) == Placed("c")
    assert refused(wants(vmAntiAffinity={"required": [ZONE]}), *ZONES[:2], around=around) == (
        "0/2 nodes fit: 2 near a machine of its vmAntiAffinity"
    )


def test_a_machine_keeps_others_away_that_do_not_mind() -> None:
    shy = wants(DATABASE, vmAntiAffinity={"required": [{**ZONE, "labelSelector": {}}]}).affinity
    assert shy
    assert shy.vm_anti_affinity
    around = neighbours(("a", replace(DATABASE, keeps_away=shy.vm_anti_affinity.required)))
    plain = Need(1, 1, itself=Neighbour("shop", {"app": "web"}))
    assert place(plain, ZONES, around) == Placed("c")
    assert refused(plain, *ZONES[:2], around=around) == (
        "0/2 nodes fit: 2 near a machine whose vmAntiAffinity keeps it away"
    )
    assert place(replace(plain, itself=Neighbour("bank")), ZONES, around) == Placed("a")


def test_preferences_outweigh_how_full_a_node_is_and_taints_outweigh_preferences() -> None:
    full = node("b", labels={"zone": "east"}, load=Load(5, 20, 50))
    likes = wants(nodeAffinity={"preferred": [{"weight": 1, "preference": EAST}]})
    assert place(likes, [node("a"), full]) == Placed("b")
    assert place(likes, [node("a"), replace(full, taints=(OLD,))]) == Placed("a")
    assert place(likes, [replace(full, taints=(OLD,))]) == Placed("b")
    around = neighbours(("a", DATABASE), ("a", DATABASE), ("b", DATABASE))
    nearer = wants(vmAffinity={"preferred": [{"weight": 5, "term": DB}]})
    assert place(nearer, [node("b"), node("a")], around) == Placed("a")
    farther = wants(vmAntiAffinity={"preferred": [{"weight": 5, "term": DB}]})
    assert place(farther, [node("b"), node("a")], around) == Placed("b")


def test_machines_are_spread_or_packed() -> None:
    nodes = [node("a"), node("b", load=Load(1, 4, 10))]
    assert place(Need(1, 1), nodes) == Placed("a")
    assert place(Need(1, 1), nodes, Surroundings(strategy=Strategy.PACKED)) == Placed("b")
    assert place(Need(37, 1), nodes, Surroundings(strategy=Strategy.PACKED)) == Placed("a")


def test_a_node_with_a_cell_that_takes_the_machine_whole_is_better_than_an_emptier_one() -> None:
    split = node("a", cells=(Cell(5, 50), Cell(5, 50)))
    whole = node("b", cells=(Cell(8, 80), Cell(2, 20)), load=Load(1, 4, 10))
    assert place(Need(6, 60), [split, whole]) == Placed("b")
    assert place(Need(5, 50), [split, whole]) == Placed("a")
    assert place(Need(6, 20), [split, replace(whole, load=Load(1, 16, 10))]) == Placed("a")


def test_a_node_with_the_image_is_better_unless_it_is_fuller() -> None:
    asked = Need(1, 1, images=frozenset({"u"}))
    holds = Surroundings(holders={"u": frozenset({"b"})})
    assert place(asked, [node("a"), node("b")], holds) == Placed("b")
    assert place(asked, [node("a"), node("b", load=Load(1, 1, 1))], holds) == Placed("a")


def test_many_reasons_are_still_counted_to_the_last_node() -> None:
    nodes = [node(f"n{n}", taints=(GPU.model_copy(update={"key": f"k{n:02}"}),)) for n in range(12)]
    message = refused(Need(1, 1), *nodes)
    assert message.startswith("0/12 nodes fit: 1 with taint k00=a10, 1 with taint k01=a10")
    assert message.endswith(", 4 for other reasons")


def view(report: dict[str, Any], **spec: Any) -> NodeView:
    told = {"daemonVersion": "", "libvirtVersion": "", "qemuVersion": "", "hypervisor": "kvm", "cpuFrequencyHz": 1}
    full = {"name": "a", "architecture": "x86_64", "cpus": 4, "memoryBytes": 100 * MIB2, **told, **report}
    body = {"metadata": {"name": "a", "labels": {"zone": "east"}}, "spec": spec}
    return NodeView(VMNode.model_validate(body), NodeReport.model_validate(full), heard=True)


def test_a_node_offers_labels_taints_models_cells_and_huge_pages() -> None:
    pages = Hugepages(page_bytes=MIB2, total=20, free=10)
    cells = [NumaCell(cell=n, cpus=c, memory_bytes=50, hugepages=(pages,)) for n, c in enumerate(("0-1,4", "2-3,x"))]
    seen = view({"numa": cells, "cpuModels": ["EPYC"]}, taints=[GPU], maintenance=True)
    offered = candidate(seen)
    assert offered.unready == "in maintenance"
    assert offered.labels == {"kubernetes.io/hostname": "a", "kubernetes.io/arch": "amd64", "zone": "east"}
    assert (offered.taints, offered.cpu_models) == ((GPU,), {"EPYC"})
    assert offered.hugepages == {MIB2: HugepageRoom(40 * MIB2, 20 * MIB2)}
    assert offered.cells == (Cell(3, 50), Cell(2, 50))
    assert seen.report
    assert allocatable(seen.node, seen.report).memory_bytes == 60 * MIB2
    assert allocatable(seen.node, seen.report).all_memory_bytes == 100 * MIB2


def test_what_a_machine_asks_it_is_promised(machine: Callable[..., VirtualMachine]) -> None:
    asking = machine(
        cpu={"cores": 2, "dedicated": True, "model": "EPYC"},
        memory={"guest": "32Mi", "hugepages": "2Mi"},
        tolerations=[{"operator": "Exists"}],
        affinity={"vmAntiAffinity": {"required": [DB]}},
    )
    sizing = resolve(asking, None)
    assert isinstance(sizing, Sizing)
    asked = need(asking, sizing, {}, images=["u"])
    assert (asked.dedicated, asked.hugepage_bytes, asked.cpu_model) == (True, MIB2, "EPYC")
    assert (asked.images, asked.tolerations) == ({"u"}, asking.spec.tolerations)
    assert asked.itself.namespace == "shop"
    assert [term.topology_key for term in asked.itself.keeps_away] == ["kubernetes.io/hostname"]
    assert load_of(sizing, {}) == Load(1, 2, 0, dedicated_cpus=2, hugepages={MIB2: 16 * MIB2})
