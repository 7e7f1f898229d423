"""Devices of the host in the status of their machine and of their node."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from virtfleet_api.device import DeviceClassRule
from virtfleet_api.report import AssignedDevice, HostDevice, NodeReport
from virtfleet_api.virtual_machine_status import DeviceStatus
from virtfleet_api.vm_node import NodeDeviceStatus, VMNode
from virtfleet_operator.core.devices import available, classes_of, is_mediated, rules_of
from virtfleet_operator.core.summarise.bounds import count_of
from virtfleet_operator.core.verdict import plain

_MAX_WORD: Final = 128
_MAX_ASSIGNED: Final = 64  # twice what a spec can hold
_MAX_DEVICES: Final = 256  # of a node; more are counted when machines are placed, and not shown
_MAX_USERS: Final = 16  # of one device; a GPU is divided into that many parts at most


def device_statuses(reported: Sequence[AssignedDevice]) -> tuple[DeviceStatus, ...]:
    """Return the devices of a machine as they are shown; each name once, whatever a node says."""
    shown = {
        (name := plain(device.name, _MAX_WORD)): DeviceStatus(
            name=name, device=plain(device.device_class, _MAX_WORD), address=plain(device.address, _MAX_WORD)
        )
        for device in reported[:_MAX_ASSIGNED]
    }
    return tuple(shown.values())


def node_device_statuses(
    node: VMNode, fleet: Sequence[DeviceClassRule], report: NodeReport, names: Mapping[str, str]
) -> tuple[NodeDeviceStatus, ...]:
    """Return the devices of a node that classes are made of; `names` are the machines by UID."""
    rules = rules_of(node, fleet)
    shown = (
        _shown(name, device, names, available(device, rules[name]) if is_mediated(rules[name]) else None)
        for name, devices in sorted(classes_of(node, fleet, report).items())
        for device in devices
    )
    return tuple(status for status, _ in zip(shown, range(_MAX_DEVICES), strict=False))


def _shown(name: str, device: HostDevice, names: Mapping[str, str], left: int | None) -> NodeDeviceStatus:
    return NodeDeviceStatus(
        device=name,
        address=plain(device.address, _MAX_WORD),
        iommu_group=None if device.iommu_group is None else count_of(device.iommu_group),
        numa=None if device.numa_cell is None else count_of(device.numa_cell),
        used_by=", ".join(_users(device, names)) or None,
        available=left,
        problem=(plain(device.problem) or None) if left is None else None,
    )


def _users(device: HostDevice, names: Mapping[str, str]) -> Iterator[str]:
    for uid in sorted(set(device.used_by[:_MAX_USERS])):
        yield plain(names.get(uid) or uid, 2 * _MAX_WORD)
