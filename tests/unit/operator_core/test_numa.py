"""NUMA, huge pages and dedicated CPUs, from a machine's spec to its document, and from reports to statuses."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from virtfleet_api.machine import Machine
from virtfleet_api.report import MachineReport, NumaReport, Phase
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_machine_status import NumaPolicy, VirtualMachineStatus
from virtfleet_api.vm_class import VMClass
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.events import EventText, machine_events
from virtfleet_operator.core.summarise.observed import observed
from virtfleet_operator.core.verdict import Invalid

Make = Callable[..., VirtualMachine]
STARTED = datetime(2030, 1, 1, tzinfo=UTC)


def a_class(**spec: Any) -> VMClass:
    return VMClass.model_validate({"metadata": {"name": "wide"}, "spec": spec})


def test_the_document_says_what_is_asked_of_the_host(machine: Make, objects: Any) -> None:
    cpu = {"cores": 11, "dedicated": True, "affinity": {"10": "4-7", "2": "0,2"}}
    vm = machine(cpu=cpu, memory={"guest": "2Gi", "hugepages": "1Gi"})
    sizing = resolve(vm, None)
    assert isinstance(sizing, Sizing)
    document = compile_machine(vm, sizing, objects, None)
    assert isinstance(document, Machine)
    assert document.hardware.dedicated_cpus
    assert list(document.hardware.affinity.items()) == [(2, "0,2"), (10, "4-7")]
    assert document.hardware.hugepage_bytes == 1 << 30


def test_what_a_class_leaves_out_is_found_when_both_are_known(machine: Make) -> None:
    pages = machine(className="wide", memory={"guest": "1025Mi"})
    refused = resolve(pages, a_class(memory={"guest": "1Gi", "hugepages": "2Mi"}))
    assert isinstance(refused, Invalid)
    assert "1025Mi" in refused.problems[0]
    pinned = machine(className="wide", cpu={"affinity": {"3": "0"}})
    assert isinstance(resolve(pinned, a_class(cpu={"cores": 4}, memory={"guest": "1Gi"})), Sizing)
    assert isinstance(resolve(pinned, a_class(cpu={"cores": 3}, memory={"guest": "1Gi"})), Invalid)


def status(*cells: int, message: str = "", **more: Any) -> VirtualMachineStatus:
    fields = {
        "uid": "u",
        "namespace": "shop",
        "name": "web",
        "phase": Phase.RUNNING,
        "vcpus": 1,
        "memory_bytes": 1 << 30,
        "started_at": STARTED,
        "numa": NumaReport(cells=cells, policy=NumaPolicy.BOUND, message=message),
    }
    shown = observed(MachineReport.model_validate(fields | more), VirtualMachineStatus())
    return VirtualMachineStatus(machine=shown.machine)


def test_a_move_is_shown_and_told_once() -> None:
    before, after = status(0), status(1, message="Moved from NUMA cell 0, 90% busy.")
    assert after.machine is not None
    assert after.machine.numa is not None
    assert after.machine.numa.to_json_dict() == {
        "cells": [1],
        "policy": "Bound",
        "message": "Moved from NUMA cell 0, 90% busy.",
    }
    assert machine_events(before, after) == (EventText("Normal", "NumaMoved", "Moved from NUMA cell 0, 90% busy."),)
    assert machine_events(after, after) == ()


@pytest.mark.parametrize("more", [{"started_at": STARTED.replace(year=2031)}, {"numa": None}])
def test_a_new_start_on_another_cell_is_no_move(more: dict[str, Any]) -> None:
    assert machine_events(status(0), status(1, message="Moved.", **more)) == ()


def test_a_node_cannot_break_a_status_with_cells() -> None:
    shown = status(*range(9999), message="x\x1b[31m" * 999)
    assert shown.machine is not None
    assert shown.machine.numa is not None
    assert len(shown.machine.numa.cells) == 64
    assert "\x1b" not in (shown.machine.numa.message or "")
