"""When a status is worth a write.

A write costs the API server more than everything else the operator does, so what passes by itself is given time to
pass, and what moves by itself is written at intervals. What somebody must act on is written at once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.security_group import SecurityGroupStatus
from virtfleet_api.virtual_machine_status import PrintableStatus, VirtualMachineStatus
from virtfleet_api.virtual_switch import VirtualSwitchStatus
from virtfleet_api.vm_image import VMImageStatus
from virtfleet_api.vm_node import VMNodeStatus
from virtfleet_api.vm_restore import VMRestoreStatus
from virtfleet_api.vm_snapshot import VMSnapshotStatus
from virtfleet_operator.core.summarise.machine_conditions import SYNCHRONIZING

PASSING_AFTER: Final = timedelta(seconds=5)
"""A state shorter than this nobody reads (docs/adr/0003)."""

GUEST_INTERVAL: Final = timedelta(seconds=5)
"""Between writes of what only the guest's words changed: a guest must not be able to make the operator write."""

ALLOCATION_INTERVAL: Final = timedelta(seconds=30)
"""Between writes of what disks take, for the same reason; a disk that fills is seen soon enough."""

PROGRESS_INTERVAL: Final = timedelta(seconds=2)
"""Between writes of an import's progress; quick enough to look alive."""

LOAD_INTERVAL: Final = timedelta(seconds=10)
"""Between writes of what a node promises: each binding changes it."""

AT_ONCE: Final = datetime.min.replace(tzinfo=UTC)
"""Due in any case."""

_NetworkStatus = VirtualSwitchStatus | SecurityGroupStatus

_COUNTS: Final = frozenset({"ports", "addresses_free", "members"})

_PASSING: Final = frozenset(
    {
        PrintableStatus.SCHEDULING,
        PrintableStatus.PROVISIONING,
        PrintableStatus.STARTING,
        PrintableStatus.STOPPING,
        PrintableStatus.TERMINATING,
    }
)


def is_transitional(status: VirtualMachineStatus) -> bool:
    """Tell whether a machine's state is passed through rather than rested in."""
    waiting = any(c.type == ConditionType.SYNCHRONIZED and c.reason == SYNCHRONIZING for c in status.conditions)
    return status.printable_status in _PASSING or waiting


def machine_write_due(
    old: VirtualMachineStatus, new: VirtualMachineStatus, since: datetime, last_written: datetime | None = None
) -> datetime | None:
    """Return when to write a machine's status, None if there is nothing to write.

    `since` is when the state that `new` tells of began; `last_written` is the last write by this process.
    """
    if old == new:
        return None
    if is_transitional(new):
        return max(since, last_written or since) + PASSING_AFTER
    if last_written is not None and _without_guest(old) == _without_guest(new):
        return max(since, last_written + GUEST_INTERVAL)
    if last_written is not None and _without_allocations(old) == _without_allocations(new):
        return max(since, last_written + ALLOCATION_INTERVAL)
    return since


def image_write_due(old: VMImageStatus, new: VMImageStatus, last_written: datetime | None) -> datetime | None:
    """Return when to write an image's status: None for never, the earliest time for at once."""
    if old == new:
        return None
    only_progress = old.model_copy(update={"progress": new.progress}) == new
    return last_written + PROGRESS_INTERVAL if only_progress and last_written else AT_ONCE


def snapshot_write_due(old: VMSnapshotStatus, new: VMSnapshotStatus, last_written: datetime | None) -> datetime | None:
    """Return when to write a snapshot's status: None for never, the earliest time for at once.

    What its disks take moves when a layer below is merged; that and its progress are written at intervals.
    """
    if old == new:
        return None
    moving = {"progress": new.progress, "disks": new.disks, "size": new.size}
    only_moving = old.model_copy(update=moving) == new
    return last_written + PROGRESS_INTERVAL if only_moving and last_written else AT_ONCE


def restore_write_due(old: VMRestoreStatus, new: VMRestoreStatus, last_written: datetime | None) -> datetime | None:
    """Return when to write a restore's status: None for never, the earliest time for at once.

    How far its machines are is written at intervals.
    """
    if old == new:
        return None
    goes_on = old.phase == new.phase and old.conditions == new.conditions
    return last_written + PROGRESS_INTERVAL if goes_on and last_written else AT_ONCE


def network_write_due(
    old: _NetworkStatus, new: _NetworkStatus, last: datetime | None, now: datetime
) -> datetime | None:
    """Return when to write the status of a switch or group: its counts at intervals, the rest at once."""
    if old == new:
        return None
    counts = {name: getattr(old, name) for name in _COUNTS & type(old).model_fields.keys()}
    return last + LOAD_INTERVAL if last and new.model_copy(update=counts) == old else now


def node_write_due(old: VMNodeStatus, new: VMNodeStatus, last_written: datetime | None) -> datetime | None:
    """Return when to write a node's status: None for never, the earliest time for at once."""
    if old == new:
        return None
    moving = {"allocated": new.allocated, "machines": new.machines, "pools": new.pools}
    only_load = old.model_copy(update=moving) == new
    return last_written + LOAD_INTERVAL if only_load and last_written else AT_ONCE


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7396) that makes `new` of `old`."""
    patch: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch


def _without_allocations(status: VirtualMachineStatus) -> VirtualMachineStatus:
    """Return a status without what the guest decides by writing to its disks, or says."""
    disks = tuple(disk.model_copy(update={"allocated": None}) for disk in status.disks)
    return _without_guest(status.model_copy(update={"disks": disks}))


def _without_guest(status: VirtualMachineStatus) -> VirtualMachineStatus:
    """Return a status without what the guest alone decides, or what moves by itself."""
    return status.model_copy(
        update={
            "guest": None,
            "disks": tuple(disk.model_copy(update={"message": None}) for disk in status.disks),
            "interfaces": tuple(card.model_copy(update={"ip_addresses": ()}) for card in status.interfaces),
            "conditions": tuple(c for c in status.conditions if c.type != ConditionType.AGENT_CONNECTED),
        }
    )
