"""Limit, reservation and shares of CPU: the machine's own, else its class's; what nodes can reserve."""

from collections.abc import Callable
from typing import Any

import pytest

from virtfleet_api.machine import CpuScheduling, Machine
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import VMClass
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.place import Candidate, Load, Need, Placed, Unschedulable, load_of, place
from virtfleet_operator.core.verdict import Invalid

MHZ = 1_000_000
CLASS = VMClass.model_validate(
    {"metadata": {"name": "fair"}, "spec": {"cpu": {"limit": "3GHz", "reservation": "700MHz", "shares": 500}}}
)


@pytest.mark.parametrize(
    ("own", "vm_class", "scheduling"),
    [
        ({}, None, CpuScheduling()),
        ({}, CLASS, CpuScheduling(limit_hz=3000 * MHZ, reservation_hz=700 * MHZ, shares=500)),
        ({"shares": 9}, CLASS, CpuScheduling(limit_hz=3000 * MHZ, reservation_hz=700 * MHZ, shares=9)),
        ({"limit": "1GHz"}, None, CpuScheduling(limit_hz=1000 * MHZ)),
        ({"reservation": "1GHz"}, None, CpuScheduling(reservation_hz=1000 * MHZ)),
    ],
)
def test_what_stands_in_the_spec_wins_over_the_class(
    machine: Callable[..., VirtualMachine],
    objects: Any,
    own: dict[str, Any],
    vm_class: VMClass | None,
    scheduling: CpuScheduling,
) -> None:
    vm = machine(cpu=own, className="fair" if vm_class else None)
    sizing = resolve(vm, vm_class)
    assert isinstance(sizing, Sizing)
    document = compile_machine(vm, sizing, objects, None)
    assert isinstance(document, Machine)
    assert document.hardware.scheduling == scheduling
    assert load_of(sizing, {}).reserved_hz == scheduling.reservation_hz


def test_a_limit_of_the_spec_below_the_reservation_of_the_class_is_refused(
    machine: Callable[..., VirtualMachine],
) -> None:
    found = resolve(machine(cpu={"limit": "500MHz"}, className="fair"), CLASS)
    assert found == Invalid(
        ("spec.cpu.limit: '500MHz' is below the reservation of '700MHz': write at least \"700MHz\", or reserve less",)
    )


def node(reserved: int, capacity: int = 5600, frequency: int = 2800) -> Candidate:
    return Candidate(
        "a", vcpus=8, memory_bytes=8, load=Load(reserved_hz=reserved), reserved_hz=capacity, cpu_hz=frequency
    )


@pytest.mark.parametrize(
    ("vcpus", "reserved", "offered", "answer"),
    [
        (1, 700, node(4900), Placed("a")),
        (1, 701, node(4900), "with too little unreserved CPU"),
        (1, 2800, node(0), Placed("a")),
        (1, 2801, node(0), "with CPUs too slow for the reservation"),
        (2, 2801, node(0), Placed("a")),
        (1, 1, node(0, 0, 0), "with CPUs too slow for the reservation"),
        (1, 0, node(9000), Placed("a")),  # the node's frequency was set lower: who reserves nothing is not concerned
    ],
)
def test_a_node_reserves_what_it_has_and_no_more(vcpus: int, reserved: int, offered: Candidate, answer: object) -> None:
    wanted = Unschedulable(f"0/1 nodes fit: 1 {answer}") if isinstance(answer, str) else answer
    assert place(Need(vcpus, 1, reserved_hz=reserved), [offered]) == wanted
