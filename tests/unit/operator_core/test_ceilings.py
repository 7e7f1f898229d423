"""Ceilings of vCPUs and memory, what a class changes when, and growth on a node that is nearly full."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from virtfleet_api.machine import Machine
from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import VMClass
from virtfleet_operator.core.admission import review_write
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.growth import growth_problems
from virtfleet_operator.core.place import Load
from virtfleet_operator.core.room import Room
from virtfleet_operator.core.verdict import Invalid

Make = Callable[..., VirtualMachine]
GIB = 1 << 30


def a_class(**spec: Any) -> VMClass:
    return VMClass.model_validate({"metadata": {"name": "small"}, "spec": spec})


def document(vm: VirtualMachine, vm_class: VMClass | None, objects: Any) -> Machine:
    sizing = resolve(vm, vm_class)
    assert isinstance(sizing, Sizing)
    made = compile_machine(vm, sizing, objects, None)
    assert isinstance(made, Machine)
    return made


def test_ceilings_come_from_the_spec_and_else_from_the_class(machine: Make, objects: Any) -> None:
    ceilings = a_class(cpu={"cores": 2, "maxVcpus": 8}, memory={"guest": "1Gi", "max": "4Gi"})
    vm = machine(className="small", cpu={"maxVcpus": 4}, memory={})
    hardware = document(vm, ceilings, objects).hardware
    assert (hardware.vcpus, hardware.max_vcpus) == (2, 4)
    assert (hardware.memory_bytes, hardware.max_memory_bytes) == (GIB, 4 * GIB)


def test_a_machine_that_outgrows_the_ceiling_of_its_class_is_invalid(machine: Make) -> None:
    found = resolve(machine(className="small", cpu={"cores": 16}), a_class(cpu={"maxVcpus": 8}))
    assert found == Invalid(("spec.cpu.maxVcpus: '8' is less than the 16 vCPUs of the machine: write at least 16",))


def test_what_is_left_to_a_class_waits_for_the_next_start(machine: Make, objects: Any) -> None:
    disks = [
        {"name": "one", "size": "1Gi", "source": {"blank": {}}},
        {"name": "two", "size": "1Gi", "source": {"blank": {}}, "ioTune": {"totalIops": 5}},
    ]
    vm = machine(className="small", cpu={"cores": 2}, memory={}, disks=disks)
    made = document(vm, a_class(memory={"guest": "1Gi"}), objects)
    assert set(made.hardware.deferred) == {
        "sockets",
        "threads",
        "max_vcpus",
        "memory_bytes",
        "max_memory_bytes",
        "affinity",
        "dedicated_cpus",
        "hugepage_bytes",
        "scheduling.limit_hz",
        "scheduling.reservation_hz",
        "scheduling.shares",
        "disks[one].limits",
    }


def test_nothing_waits_without_a_class_or_with_one_that_changes_running_machines(machine: Make, objects: Any) -> None:
    assert document(machine(), None, objects).hardware.deferred == ()
    live = a_class(updates="Live", memory={"guest": "1Gi"})
    assert document(machine(className="small", memory={}), live, objects).hardware.deferred == ()


ROOM = Room("a", vcpus=3, memory_bytes=2 * GIB, reserved_hz=2_000_000_000)


@pytest.mark.parametrize(
    ("before", "after", "problems"),
    [
        (Load(1, 1, GIB), Load(1, 3, 2 * GIB), 0),
        (Load(1, 1, GIB), Load(1, 4, 2 * GIB), 1),
        (Load(1, 1, GIB), Load(1, 4, 3 * GIB), 2),
        (Load(1, 6, 4 * GIB), Load(1, 6, 3 * GIB), 0),
        (Load(1, 1, GIB), Load(1, 1, GIB, reserved_hz=2_100_000_000), 1),
    ],
)
def test_only_what_grows_beyond_the_node_is_refused(before: Load, after: Load, problems: int) -> None:
    assert len(growth_problems(before, after, ROOM)) == problems


def test_growth_beyond_the_node_is_refused_at_admission_with_what_fits(
    machine: Make, objects: Any, now: datetime
) -> None:
    objects.node_room = ROOM
    old, new = (
        machine(cpu={"cores": cores}, memory={"guest": size}).model_dump(mode="json", by_alias=True, exclude_none=True)
        for cores, size in ((1, "1Gi"), (4, "3Gi"))
    )
    for body in (old, new):
        body["metadata"] |= {"labels": {NODE_LABEL: "a"}, "finalizers": [FINALIZER]}
    refusal = review_write(new, old, objects, now).refusal
    assert refusal is not None
    assert refusal.message == (
        "spec.cpu: 4 vCPUs are more than node a has room for: write at most 3, or move other machines away; "
        "spec.memory.guest: '3Gi' is more than node a has room for: write at most \"2Gi\", or move other machines away"
    )
    assert review_write(old, new, objects, now).refusal is None
