"""Limits of disks: the machine's own, else its class's, as numbers."""

from collections.abc import Callable
from typing import Any

import pytest

from virtfleet_api.machine import IoLimits, Machine
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import VMClass
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.effective import Sizing, resolve

BLANK = {"name": "root", "size": "1Gi", "source": {"blank": {}}}
CLASS = VMClass.model_validate({"metadata": {"name": "slow"}, "spec": {"ioTune": {"totalIops": 100}}})


@pytest.mark.parametrize(
    ("own", "vm_class", "limits"),
    [
        (None, None, None),
        ({}, None, None),
        ({"readBytesPerSecond": "50Mi", "group": "a"}, None, IoLimits(read_bytes_per_second=50 << 20, group="a")),
        (None, CLASS, IoLimits(total_iops=100)),
        ({}, CLASS, None),
        ({"writeIops": 7}, CLASS, IoLimits(write_iops=7)),
        (
            {"totalIops": 5, "totalIopsBurst": 9, "burstSeconds": 3},
            None,
            IoLimits(total_iops=5, total_iops_burst=9, burst_seconds=3),
        ),
    ],
)
def test_a_disk_is_limited_by_itself_or_by_its_class(
    machine: Callable[..., VirtualMachine],
    objects: Any,
    own: dict[str, Any] | None,
    vm_class: VMClass | None,
    limits: IoLimits | None,
) -> None:
    disk = BLANK if own is None else {**BLANK, "ioTune": own}
    vm = machine(disks=[disk], className="slow" if vm_class else None)
    sizing = resolve(vm, vm_class)
    assert isinstance(sizing, Sizing)
    document = compile_machine(vm, sizing, objects, None)
    assert isinstance(document, Machine)
    assert document.hardware.disks[0].limits == limits
