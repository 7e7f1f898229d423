"""A disk's limits in libvirt's words, the same for a domain's XML and for a change of a running guest.

QEMU keeps limits in throttle groups, named within one QEMU. Every disk with limits has a group, if only its own: thus a
disk can be taken into a group and out again while the guest runs.
"""

from collections.abc import Mapping
from typing import Final

from virtfleet_api.machine import IoLimits, MachineDisk
from virtfleet_node.core.desired.element import Element, add

GROUP_NAME: Final = "group_name"

_NAMES: Final = {
    "total_bytes_per_second": "total_bytes_sec",
    "read_bytes_per_second": "read_bytes_sec",
    "write_bytes_per_second": "write_bytes_sec",
    "total_iops": "total_iops_sec",
    "read_iops": "read_iops_sec",
    "write_iops": "write_iops_sec",
}
"""VIR_DOMAIN_BLOCK_IOTUNE_*; bursts end in _max, and how long they last in _max_length."""

Tuning = Mapping[str, int | str]
"""libvirt's parameters by name, all of them: 0 is no limit."""


def build_tuning(disk: MachineDisk) -> Tuning:
    """Return every parameter of a disk: what is not named would stay as it was."""
    limits = disk.limits or IoLimits()
    values: dict[str, int | str] = {}
    for ours, theirs in _NAMES.items():
        burst = getattr(limits, f"{ours}_burst")
        values[theirs] = getattr(limits, ours)
        values[f"{theirs}_max"] = burst
        values[f"{theirs}_max_length"] = limits.burst_seconds if burst else 0
    values[GROUP_NAME] = f"group-{limits.group}" if limits.group else f"disk-{disk.name}"
    return values


def effective(tuning: Tuning) -> Tuning:
    """Return what of the parameters has an effect, to compare what is with what shall be."""
    limits = {name: value for name, value in tuning.items() if value and name != GROUP_NAME}
    return {**limits, GROUP_NAME: tuning.get(GROUP_NAME, "")} if limits else {}


def add_io_tune(element: Element, disk: MachineDisk) -> None:
    """Write <iotune> into a disk that has limits."""
    if disk.limits is None:
        return
    parent = add(element, "iotune")
    for name, value in effective(build_tuning(disk)).items():
        add(parent, name, str(value))


def parse_io_tune(element: Element) -> Tuning:
    """Return the parameters that a disk of a domain has."""
    found = element.find("iotune")
    children = () if found is None else found
    return {
        child.tag: (child.text or "") if child.tag == GROUP_NAME else int(child.text or 0)
        for child in children
        if isinstance(child.tag, str)
    }
