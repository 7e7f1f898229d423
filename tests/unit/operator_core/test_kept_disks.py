"""Disks that outlive their machine: what is made of them, who takes them over, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from virtfleet_api.machine import ExistingSource, Machine, RetainedSource, Run
from virtfleet_api.names import API_VERSION, DISK_FINALIZER
from virtfleet_api.report import PoolReport, RetainedDisk
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import Clone, ReclaimPolicy, VirtualMachine
from virtfleet_api.vm_disk import VMDisk
from virtfleet_operator.core.admission import review_deletion, review_write
from virtfleet_operator.core.adoption import Adoption, adoption_node, adoption_problems, find_adoptions
from virtfleet_operator.core.compile import compile_deletion, compile_machine
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.kept_disks import (
    MOST_KEPT,
    compile_bare_deletion,
    compile_question,
    disk_object,
    is_readable,
    is_the_disk,
    kept_disks,
    unreadable_pools,
)
from virtfleet_operator.core.validate.disk_object import disk_object_name, disk_object_problems
from virtfleet_operator.core.verdict import Invalid, Waiting

Make = Callable[..., VirtualMachine]
SIZE = Sizing(1, 1, 1, "host-model", 1 << 30)
FORMER = ObjectMeta(name="web-0", namespace="shop", uid="99999999-2222-3333-4444-555555555555")
DATA = RetainedDisk(name="data", pool="fast", capacity_bytes=2 << 30)


def kept(phase: str = "Available", node: str = "node-a", user: Any = None, **meta: Any) -> VMDisk:
    ((_, spec),) = kept_disks(FORMER, node, (DATA,))
    body = disk_object("shop", spec)
    status = {"phase": phase, "capacity": "2Gi"} | ({"user": user} if user else {})
    return VMDisk.model_validate(body | {"metadata": body["metadata"] | meta, "status": status})


def adopter(machine: Make, disk: VMDisk, status: Any = None, metadata: Any = None, **more: Any) -> VirtualMachine:
    clone = {"clone": more.pop("clone")} if "clone" in more else {}
    source = {"vmDisk": {"name": disk.metadata.name}, **clone}
    return machine(status, metadata, disks=[{"name": "mine", "pool": "fast", "source": source, **more}])


def test_a_disk_has_one_object_whoever_makes_it(objects: Any) -> None:
    ((disk, spec),) = kept_disks(FORMER, "node-a", (DATA,))
    assert disk == DATA
    body = disk_object("shop", spec)
    assert body["metadata"]["name"].startswith("web-0-data-")
    assert body["metadata"]["finalizers"] == [DISK_FINALIZER]
    assert body == disk_object("shop", spec)
    assert body["apiVersion"] == API_VERSION
    names = {
        disk_object_name(spec.model_copy(update=change))
        for change in ({}, {"node_name": "node-b"}, {"pool": "slow"}, {"disk": "root"})
    }
    assert len(names) == 4
    assert review_write(body, None, objects, None).refusal is None  # type: ignore[arg-type]


def test_what_no_disk_of_ours_is_called_is_left_alone_and_no_node_is_believed_more_than_a_bound() -> None:
    strange = DATA.model_copy(update={"name": "../../etc/passwd"})
    many = [DATA.model_copy(update={"name": f"d{number}"}) for number in range(MOST_KEPT + 9)]
    assert [disk.name for disk, _ in kept_disks(FORMER, "node-a", (strange, DATA))] == ["data"]
    assert len(list(kept_disks(FORMER, "node-a", many))) == MOST_KEPT


def test_a_kept_disk_binds_the_machine_to_its_node_and_becomes_its_own(machine: Make, objects: Any) -> None:
    disk = kept()
    objects.kept["shop", disk.metadata.name] = disk
    vm = adopter(machine, disk, clone="Full")
    found = find_adoptions(vm, objects)
    assert found == {"mine": Adoption(FORMER.uid, "data", "node-a")}
    assert adoption_node(found) == "node-a"
    document = compile_machine(vm, SIZE, objects, None)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].source == RetainedSource(machine_uid=FORMER.uid, name="data", clone=Clone.FULL)
    assert compile_deletion(vm, SIZE, objects).hardware.disks[0].source == ExistingSource(clone=Clone.FULL)
    objects.kept.clear()
    taken = adopter(machine, disk, {"disks": [{"name": "mine", "pool": "fast", "capacity": "2Gi", "target": "vda"}]})
    document = compile_machine(taken, SIZE, objects, None)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].source == ExistingSource()


OTHER_USER = {"name": "other", "uid": "88888888-2222-3333-4444-555555555555"}


@pytest.mark.parametrize(
    ("disk", "says"),
    [
        (None, "is not there"),
        (kept("Pending"), "see its condition Ready"),
        (kept("Lost"), "node node-a, which left the fleet"),
        (kept("InUse", user=OTHER_USER), "is taken over by VirtualMachine 'other'"),
        (kept(deletionTimestamp="2026-11-23T10:00:00Z"), "is being deleted"),
        (kept().model_copy(update={"spec": kept(node="node-b").spec}), "see its condition Ready"),
    ],
)
def test_what_cannot_be_taken_over_is_waited_for(machine: Make, objects: Any, disk: VMDisk | None, says: str) -> None:
    vm = adopter(machine, kept())
    if disk is not None:
        objects.kept["shop", kept().metadata.name] = disk
    found = find_adoptions(vm, objects)
    assert isinstance(found, Waiting)
    assert found.message.startswith("spec.disks[0].source.vmDisk: the VMDisk 'web-0-data-")
    assert says in found.message
    assert compile_machine(vm, SIZE, objects, None) == found


def test_the_machine_that_has_it_goes_on_even_while_it_is_being_deleted(machine: Make, objects: Any) -> None:
    vm = adopter(machine, kept())
    user = {"name": vm.metadata.name, "uid": vm.metadata.uid}
    objects.kept["shop", kept().metadata.name] = kept("InUse", user=user)
    assert isinstance(find_adoptions(vm, objects), dict)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pool": "slow"}, "spec.disks[0].pool: is 'slow', and the VMDisk 'web-0-data-"),
        ({"size": "1Gi"}, "spec.disks[0].size: '1Gi' is smaller than the VMDisk 'web-0-data-"),
    ],
)
def test_pool_and_size_must_be_those_of_the_disk(machine: Make, objects: Any, change: Any, says: str) -> None:
    disk = kept()
    objects.kept["shop", disk.metadata.name] = disk
    vm = adopter(machine, disk, **change)
    found = find_adoptions(vm, objects)
    assert isinstance(found, Invalid)
    assert found.message.startswith(says)
    assert adoption_problems(vm, objects) == found.problems
    body = vm.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert review_write(body, None, objects, None).refusal == found  # type: ignore[arg-type]


def test_a_machine_that_is_elsewhere_cannot_have_it(machine: Make, objects: Any) -> None:
    disk = kept()
    objects.kept["shop", disk.metadata.name] = disk
    found = find_adoptions(adopter(machine, disk, {"nodeName": "node-b"}), objects)
    assert isinstance(found, Invalid)
    assert "nodes node-a and node-b" in found.message
    assert find_adoptions(adopter(machine, disk), objects, "node-b") == found


def test_a_spec_that_was_changed_is_refused_and_known_for_it() -> None:
    disk = kept()
    assert disk_object_problems(disk, disk) == ()
    changed = disk.model_copy(update={"spec": kept(node="node-b").spec})
    assert disk_object_problems(changed, disk)[0].startswith("spec: cannot change")
    assert disk_object_problems(changed)[0].startswith("spec: was changed")


@pytest.mark.parametrize(
    ("users", "user", "refused"),
    [
        ((), None, False),
        (("shop/web-1", "shop/web-2"), None, True),
        (("shop/web-2",), {"name": "web-1", "uid": FORMER.uid}, False),
        (("shop/web-1", "shop/web-2"), {"name": "web-1", "uid": FORMER.uid}, True),
    ],
    ids=["nobody", "named", "taken, and named by another", "being taken"],
)
def test_a_disk_is_not_deleted_under_a_machine(objects: Any, users: Any, user: Any, refused: bool) -> None:  # noqa: FBT001 -- a case
    objects.disk_machines = users
    body = kept(user=user).model_dump(mode="json", by_alias=True, exclude_none=True)
    refusal = review_deletion(body, objects).refusal
    assert (refusal is not None) == refused
    if refusal:
        assert "is named by VirtualMachine shop/web-1" in refusal.message


def test_a_node_is_asked_about_one_disk_of_a_machine_that_is_gone() -> None:
    asked = compile_question("shop", kept().spec, ReclaimPolicy.DELETE)
    assert (asked.uid, asked.name, asked.namespace, asked.run) == (FORMER.uid, "web-0", "shop", Run.ABSENT)
    (disk,) = asked.hardware.disks
    assert (disk.pool, disk.name, disk.reclaim_policy) == ("fast", "data", ReclaimPolicy.DELETE)
    assert is_the_disk(kept().spec, (DATA,))
    assert not is_the_disk(kept().spec, (DATA.model_copy(update={"pool": "slow"}),))
    assert compile_bare_deletion(FORMER).hardware.disks == ()


def test_a_pool_that_cannot_be_read_proves_nothing(machine: Make) -> None:
    disk = {"name": "data", "pool": "fast", "size": "2Gi", "source": {"blank": {}}, "reclaimPolicy": "Retain"}
    vm = machine(disks=[disk])
    good = PoolReport(name="fast", capacity_bytes=1 << 30, free_bytes=0)
    bad = PoolReport(name="fast", capacity_bytes=0, free_bytes=0, problem="Pool fast cannot be read.")
    assert is_readable("fast", (good,))
    assert not is_readable("fast", (bad,))
    assert not is_readable("fast", ())
    assert unreadable_pools(vm, (), (bad,)) == ("fast",)
    assert unreadable_pools(vm, (), (good,)) == ()
    assert unreadable_pools(vm, (DATA,), (bad,)) == ()
    assert unreadable_pools(vm, (), ()) == (), "a pool that is not there has never held it"
