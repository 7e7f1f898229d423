"""Disks that are copied from other machines: what is waited for, what is refused, and when the source is needed."""

from collections.abc import Callable
from typing import Any

import pytest

from virtfleet_api.machine import DiskCopySource, ExistingSource, Machine
from virtfleet_api.names import NODE_LABEL
from virtfleet_api.report import MachineReport, Phase
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import Clone, VirtualMachine
from virtfleet_operator.core.catalog import image_references
from virtfleet_operator.core.compile import compile_deletion, compile_machine
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.place import Candidate, Placed, Unschedulable, need, place
from virtfleet_operator.core.sources import Source, find_sources, source_node, source_problems
from virtfleet_operator.core.summarise.facts import MachineFacts, word_of
from virtfleet_operator.core.summarise.machine_conditions import machine_says
from virtfleet_operator.core.verdict import Invalid, Waiting

Make = Callable[..., VirtualMachine]
SIZE = Sizing(1, 1, 1, "host-model", 1 << 30)
SOURCE_UID = "99999999-2222-3333-4444-555555555555"


def stored(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "pool": "fast", "capacity": "2Gi", "target": "vda"} | more


def source(machine: Make, *names: str, node: str | None = "node-a", made: bool = True, **meta: Any) -> VirtualMachine:
    status = {"disks": [stored(name) for name in names] if made else []} | ({"nodeName": node} if node else {})
    disks = [{"name": name, "size": "2Gi", "source": {"blank": {}}} for name in names]
    return machine(status, {"name": "golden", "uid": SOURCE_UID} | meta, disks=disks)


def clone(
    machine: Make, *names: str, of: str = "golden", status: dict[str, Any] | None = None, **disk: Any
) -> VirtualMachine:
    given = {"clone": disk.pop("clone")} if "clone" in disk else {}
    disks = [{"name": n, "source": {"disk": {"virtualMachine": of, "name": n}, **given}, **disk} for n in names]
    return machine(status, disks=disks)


def test_a_disk_that_is_there_binds_its_copy_to_its_node(machine: Make, objects: Any) -> None:
    objects.sources["shop", "golden"] = source(machine, "root")
    vm = clone(machine, "root", clone="Full")
    found = find_sources(vm, objects)
    assert found == {"root": Source(SOURCE_UID, "fast", "node-a")}
    document = compile_machine(vm, SIZE, objects, None)
    assert isinstance(document, Machine)
    wanted = DiskCopySource(machine_uid=SOURCE_UID, pool="fast", name="root", clone=Clone.FULL)
    assert document.hardware.disks[0].source == wanted
    node = {"vcpus": 8, "memory_bytes": 8 << 30, "pools": {"default": 1}}
    asked = need(vm, SIZE, {}, source_node(found))
    assert place(asked, [Candidate("node-b", **node), Candidate("node-a", **node)]) == Placed("node-a")
    assert place(asked, [Candidate("node-b", **node), Candidate("node-a", **{**node, "vcpus": 0})]) == Unschedulable(
        "0/2 nodes fit: 1 with too few free vCPUs, 1 without the disk that it is made from"
    )


@pytest.mark.parametrize(
    ("given", "reason", "message"),
    [
        (None, "SourceNotFound", "there is no VirtualMachine 'golden' in this namespace: create it or name another"),
        (
            {"deletionTimestamp": "2026-11-23T10:00:00Z"},
            "SourceNotFound",
            "the VirtualMachine 'golden' is being deleted: name another",
        ),
        (
            {"made": False},
            "SourceNotReady",
            "the disk 'root' of VirtualMachine 'golden' has not been made yet: it is copied once it is there",
        ),
        (
            {"node": None},
            "SourceNotReady",
            "the disk 'root' of VirtualMachine 'golden' has not been made yet: it is copied once it is there",
        ),
    ],
)
def test_what_is_not_there_is_waited_for(
    machine: Make, objects: Any, given: dict[str, Any] | None, reason: str, message: str
) -> None:
    if given is not None:
        objects.sources["shop", "golden"] = source(machine, "root", **given)
    vm = clone(machine, "root")
    expected = Waiting(reason, f"spec.disks[0].source.disk: {message}")
    assert find_sources(vm, objects) == compile_machine(vm, SIZE, objects, None) == expected
    assert source_problems(vm, objects) == ()


@pytest.mark.parametrize(
    ("names", "disk", "problem"),
    [
        (
            ("data",),
            {},
            "spec.disks[0].source.disk.name: VirtualMachine 'golden' has no disk 'data': write one of root, logs",
        ),
        (
            ("root",),
            {"size": "1Gi"},
            "spec.disks[0].size: '1Gi' is smaller than the disk it is copied from: write \"2Gi\" or leave it out",
        ),
    ],
)
def test_what_can_never_be_is_refused(
    machine: Make, objects: Any, names: tuple[str, ...], disk: dict[str, Any], problem: str
) -> None:
    objects.sources["shop", "golden"] = source(machine, "root", "logs")
    vm = clone(machine, *names, **disk)
    assert find_sources(vm, objects) == Invalid((problem,))
    assert source_problems(vm, objects) == (problem,)


def test_copies_do_not_leave_their_node(machine: Make, objects: Any) -> None:
    objects.sources["shop", "golden"] = source(machine, "root")
    objects.sources["shop", "other"] = source(machine, "data", node="node-b", name="other")
    disks = [*clone(machine, "root").spec.disks, *clone(machine, "data", of="other").spec.disks]
    vm = machine(disks=[disk.to_json_dict() for disk in disks])
    said = "the disks would be on nodes node-a and node-b, and copies do not leave their node"
    problem = f"spec.disks[0].source.disk: {said}: name disks of machines of one node"
    assert find_sources(vm, objects) == Invalid((problem,))
    bound = vm.model_copy(
        update={"metadata": ObjectMeta(name="web-1", namespace="shop", labels={NODE_LABEL: "node-a"})}
    )
    assert find_sources(bound, objects) == Invalid((problem.replace("disks[0]", "disks[1]"),))


def test_a_copy_that_exists_needs_its_source_no_more(machine: Make, objects: Any) -> None:
    vm = clone(machine, "root", status={"disks": [stored("root", backing=SOURCE_UID)], "nodeName": "node-a"})
    document = compile_machine(vm, SIZE, objects, None)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].source == ExistingSource()
    assert document.image_uids() == frozenset()


@pytest.mark.parametrize("clone", Clone)
def test_a_disk_that_needs_its_image_no_more_is_compiled_without_it(machine: Make, objects: Any, clone: Clone) -> None:
    disk = {"name": "root", "source": {"image": {"name": "gone"}, "clone": clone}}
    vm = machine({"disks": [stored("root")]}, disks=[disk])
    document = compile_machine(vm, SIZE, objects, None)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].source == ExistingSource(clone=clone)
    assert image_references(vm) == ()
    linked = machine({"disks": [stored("root", backing=SOURCE_UID)]}, disks=[disk])
    assert image_references(linked) == (("shop", "gone"),)
    assert isinstance(compile_machine(linked, SIZE, objects, None), Waiting)


def test_a_machine_is_deleted_without_its_source(machine: Make, objects: Any) -> None:
    document = compile_deletion(clone(machine, "root"), SIZE, objects)
    assert [disk.source for disk in document.hardware.disks] == [ExistingSource()]


def test_a_source_that_waits_for_its_copies_says_for_whom() -> None:
    report = MachineReport(
        uid=SOURCE_UID, namespace="shop", name="golden", phase=Phase.STOPPING, reason="WaitingForCopies", message="Why."
    )
    facts = MachineFacts(node_name="node-a", report=report)
    meta = ObjectMeta.model_validate({"name": "golden", "deletionTimestamp": "2026-11-23T10:00:00Z"})
    said = list(machine_says(word_of(meta, facts), 1, meta, facts))
    assert said[0].message == "Node node-a removes the machine: Why."
