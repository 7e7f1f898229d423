"""A restore to a snapshot, as the next actions: served once, and finished by whoever finds it begun.

The disks are put back by new layers above those that the snapshot names; what they were before stays until the restore
is done. A guest that goes on from memory is left paused by its start: nothing it did can be lost with the daemon.
"""

from collections.abc import Iterator
from datetime import datetime

from virtfleet_api.machine import Machine, MachineDisk, Run, SnapshotDiskSource
from virtfleet_node.core.actions import Action, Destroy, PrepareDisk, WriteRecord
from virtfleet_node.core.captured import Captured, CapturedDisk
from virtfleet_node.core.observed import DomainState, Observed
from virtfleet_node.core.record import ERROR_LENGTH, Life, Record, forgiven
from virtfleet_node.core.restore_actions import BeginRestore, DropLayers, MakeLayers, StartWarm, TidyLayers
from virtfleet_node.core.restoring import ATTEMPTS, NewLayer, Restoring
from virtfleet_node.core.settle import starting
from virtfleet_node.core.snapshot_view import SnapshotView


def restore_pending(desired: Machine, record: Record) -> bool:
    """Tell whether a restore is asked for that has neither been served nor begun."""
    return desired.restore is not None and desired.restore.token != record.restored_token and record.restoring is None


def plan_restore(desired: Machine, observed: Observed, record: Record, now: datetime) -> tuple[Action, ...] | None:
    """Return the next actions of a restore; None when there is none, or when something else must end before."""
    if observed.domain.state is DomainState.ABSENT:
        return None
    if record.restoring is not None:
        return _go_on(desired, observed, record, record.restoring, now)
    if not restore_pending(desired, record) or desired.restore is None:
        return None
    token = desired.restore.token
    if refusal := _refusal(desired, observed):
        return (WriteRecord(_ended(record, token, error=refusal)),)
    if observed.disks_in_use or observed.snapshot is None:
        return None
    restoring = _intent(desired, observed, observed.snapshot)
    mark = {"restoring": restoring, **(_stopping(record, now) if observed.domain.active else {})}
    return (BeginRestore(record.model_copy(update=mark)),)


def waits_for_others(desired: Machine, observed: Observed, record: Record) -> bool:
    """Tell whether a restore waits until nothing else works on the machine's disks."""
    return restore_pending(desired, record) and observed.disks_in_use


def _go_on(
    desired: Machine, observed: Observed, record: Record, restoring: Restoring, now: datetime
) -> tuple[Action, ...]:
    if observed.domain.active:
        mark = (WriteRecord(record.model_copy(update=_stopping(record, now))),) if not record.stopping_since else ()
        return (*mark, Destroy())
    if restoring.error:
        ended = _ended(record, restoring.token, error=restoring.error)
        return (DropLayers(restoring), WriteRecord(ended), TidyLayers())
    if (lost := _lost(observed)) is not None:
        return (WriteRecord(_given_up(record, restoring, lost)),)
    return _put_back(desired, observed, restoring) or _end(desired, record, restoring, now)


def _put_back(desired: Machine, observed: Observed, restoring: Restoring) -> tuple[Action, ...]:
    """Return how the disks are put back; nothing once they are."""
    if any((layer.pool, layer.file) not in _tips(observed) for layer in restoring.layers):
        return (MakeLayers(restoring),)
    return tuple(PrepareDisk(disk) for disk in _missing(desired, observed, restoring))


def _end(desired: Machine, record: Record, restoring: Restoring, now: datetime) -> tuple[Action, ...]:
    """Return how a restore ends whose disks are put back."""
    if not restoring.memory or desired.run is Run.STOPPED:
        return (WriteRecord(_ended(record, restoring.token, restoring.snapshot_uid)), TidyLayers())
    if restoring.attempts >= ATTEMPTS:
        why = f"The guest was started from memory {ATTEMPTS} times, and QEMU or libvirt ended each time"
        return (WriteRecord(_given_up(record, restoring, f"{why}; see the node's log.")),)
    tried = restoring.model_copy(update={"attempts": restoring.attempts + 1})
    return (StartWarm(starting(desired, record, now).model_copy(update={"restoring": tried})),)


def given_up(record: Record, error: str) -> Record:
    """Return the record of a restore that cannot be done, of which the new layers are still there."""
    if record.restoring is None:
        return record
    return _given_up(record.model_copy(update={"life": Life.OFF}), record.restoring, error)


def restored_warm(record: Record, restoring: Restoring) -> Record:
    """Return the record of a guest that is about to go on from memory."""
    done = _ended(record, restoring.token, restoring.snapshot_uid)
    behind = {"clock_behind": True, "machine_id_due": restoring.machine_id}
    return done.model_copy(update={"life": Life.RUNNING, "restored_warm": True, **behind})


def _given_up(record: Record, restoring: Restoring, error: str) -> Record:
    said = " ".join(error.split())[:ERROR_LENGTH]
    return record.model_copy(update={"restoring": restoring.model_copy(update={"error": said})})


def _ended(record: Record, token: str, snapshot_uid: str = "", error: str = "") -> Record:
    """Return the record after a restore; one that was done counts as a request to run, whatever the guest did before.

    One that failed is the last thing that is known of the machine's snapshots: its disks are as they were.
    """
    update = {
        "restoring": None,
        "restored_token": token,
        "restore_error": error,
        "restored_warm": False,
        "machine_id_due": False,
        "machine_id_error": "",
    }
    if error:
        return record.model_copy(update=update)
    return forgiven(record).model_copy(update={**update, "snapshot_uid": snapshot_uid})


def _stopping(record: Record, now: datetime) -> dict[str, object]:
    """Mark the guest's end as requested."""
    return {"stopping_since": record.stopping_since or now, "life": Life.RUNNING}


def _tips(observed: Observed) -> set[tuple[str, str]]:
    return {(disk.pool, disk.path.name) for disk in observed.disks}


def _intent(desired: Machine, observed: Observed, snapshot: SnapshotView) -> Restoring:
    captured, restore = snapshot.kept.captured, desired.restore
    if captured is None or restore is None:
        raise ValueError("nothing to restore")
    pairs = ((disk, _counterpart(desired, observed, snapshot, disk)) for disk in captured.disks)
    layers = tuple(
        NewLayer(name=own.name, pool=own.pool, file=file, captured=disk.name)
        for disk, own in pairs
        if own is not None and (file := snapshot.next_files.get((own.pool, own.name)))
    )
    memory = captured.memory and restore.memory and desired.run is not Run.STOPPED
    return Restoring(
        token=restore.token,
        snapshot_uid=snapshot.kept.uid,
        memory=memory,
        machine_id=memory and restore.machine_id,
        layers=layers,
    )


def _counterpart(
    desired: Machine, observed: Observed, snapshot: SnapshotView, disk: CapturedDisk
) -> MachineDisk | None:
    """Return the machine's disk for one of the snapshot: of the same name, or made from it."""
    own = desired.hardware.own_disks
    return next((o for o in own if o.pool == disk.pool and _is_counterpart(desired, observed, snapshot, disk, o)), None)


def _is_counterpart(
    desired: Machine, observed: Observed, snapshot: SnapshotView, disk: CapturedDisk, own: MachineDisk
) -> bool:
    if isinstance(own.source, SnapshotDiskSource) and own.source.snapshot_uid == snapshot.kept.uid:
        return own.source.name == disk.name
    if snapshot.kept.document.machine_uid == desired.uid:
        return own.name == disk.name
    stored, below = observed.stored_disk(own), snapshot.below.get(disk.name)
    return stored is not None and below in stored.layers


def find_counterparts(desired: Machine, observed: Observed, snapshot: SnapshotView) -> dict[str, MachineDisk]:
    """Return the machine's disks by the names of those in the snapshot; a disk that was left out by its own name."""
    named = {disk.name: disk for disk in desired.hardware.own_disks}
    disks = snapshot.kept.captured.disks if snapshot.kept.captured else ()
    found = {disk.name: _counterpart(desired, observed, snapshot, disk) for disk in disks}
    return {**named, **{name: disk for name, disk in found.items() if disk is not None}}


def _missing(desired: Machine, observed: Observed, restoring: Restoring) -> Iterator[MachineDisk]:
    """Yield the disks that are made from the snapshot and are not there, and with memory all that a guest may need."""
    for disk in desired.hardware.own_disks:
        source = disk.source
        made = isinstance(source, SnapshotDiskSource) and source.snapshot_uid == restoring.snapshot_uid
        needed = made or (restoring.memory and source.kind in {"Blank", "Retained"})
        if needed and observed.stored_disk(disk) is None:
            yield disk


def _lost(observed: Observed) -> str | None:
    """Say that a snapshot is gone that is being restored; None while it is there."""
    if observed.snapshot is None or observed.snapshot.kept.captured is None:
        return "The snapshot was removed while it was being restored."
    return None


def _refusal(desired: Machine, observed: Observed) -> str:
    """Say why a restore cannot be begun; empty when it can."""
    snapshot, restore = observed.snapshot, desired.restore
    if snapshot is None or restore is None:
        uid = restore.snapshot_uid if restore else ""
        return f"This node has no snapshot {uid}: it was removed, or lies on another node."
    if snapshot.kept.error:
        return f"The snapshot failed, so there is nothing to restore: {snapshot.kept.error}"
    captured = snapshot.kept.captured
    if captured is None:
        return "The snapshot has not been captured yet; restore it once it is Ready."
    return _disk_refusal(desired, observed, snapshot, captured) or _memory_refusal(desired, snapshot, captured)


def _disk_refusal(desired: Machine, observed: Observed, snapshot: SnapshotView, captured: Captured) -> str:
    for disk in captured.disks:
        own = _counterpart(desired, observed, snapshot, disk)
        if own is None and snapshot.kept.document.machine_uid != desired.uid:
            return (
                f"Disk {disk.name} of the snapshot is another machine's, and no disk of this one is made from it; make "
                "a new machine from the snapshot instead."
            )
        if own is None:
            return (
                f"Disk {disk.name} of the snapshot is not a disk of the machine any more; make a new machine from the "
                "snapshot instead, or take a snapshot without that disk."
            )
        if disk.name not in snapshot.below:
            return f"The file {disk.file} of disk {disk.name} is gone from pool {disk.pool}; the snapshot is of no use."
        if observed.stored_disk(own) is None and not isinstance(own.source, SnapshotDiskSource):
            return f"Disk {own.name} of the machine is not there; an administrator must look at pool {own.pool}."
    return ""


def _memory_refusal(desired: Machine, snapshot: SnapshotView, captured: Captured) -> str:
    wanted = desired.restore is not None and desired.restore.memory and desired.run is not Run.STOPPED
    if not wanted or not captured.memory:
        return ""
    if captured.hardware.devices:
        names = ", ".join(device.name for device in captured.hardware.devices)
        return (
            f"The guest of the snapshot had devices of the host ({names}), whose state no memory image holds; restore "
            "it without memory."
        )
    if snapshot.unreadable:
        return f"The memory image of the snapshot cannot be read: {snapshot.unreadable}; restore it without memory."
    return ""
