"""What is refused of snapshots, what a capture waits for, and what is told of it."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import (
    BlankSource,
    Hardware,
    Machine,
    MachineDevice,
    MachineDisk,
    MachineRestore,
    Run,
    SnapshotDiskSource,
    VolumeSource,
)
from virtfleet_api.report import Phase
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_api.steady import LEAST_STEP
from virtfleet_api.vm_snapshot import MAX_SNAPSHOTS, SnapshotMode, SnapshotPhase
from virtfleet_node.core.capture import (
    Seen,
    build_report,
    check_capture,
    check_removal,
    check_same,
    check_wanted,
    failed,
    included,
    waits_for,
)
from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot
from virtfleet_node.core.errors import ConflictError, InvalidError, UnavailableError
from virtfleet_node.core.places import Places
from virtfleet_node.core.record import ERROR_LENGTH, Record
from virtfleet_node.core.restoring import Restoring
from virtfleet_node.core.stored import StoredDisk

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DISK = CapturedDisk(name="root", pool="fast", file="root.qcow2", capacity_bytes=1 << 30)
HARDWARE = Hardware(
    memory_bytes=1 << 28,
    disks=(MachineDisk(name="root", pool="fast", source=BlankSource(), size_bytes=1 << 30),),
)
MACHINE = Machine(uid=str(uuid.UUID(int=1)), namespace="shop", name="web", run=Run.RUNNING, hardware=HARDWARE)
WANTED = MachineSnapshot(uid=str(uuid.UUID(int=2)), namespace="shop", name="before", machine_uid=MACHINE.uid)
THERE = (StoredDisk("fast", "root", "/pool/root.qcow2", ImageFormat.QCOW2, 1 << 30),)  # type: ignore[arg-type]
KEPT = KeptSnapshot(document=WANTED)
CAPTURED = Captured(created_at=NOW, hardware=HARDWARE, places=Places(), disks=(DISK,), memory=True)


def test_the_most_snapshots_of_a_machine() -> None:
    check_capture(WANTED, MACHINE, THERE, MAX_SNAPSHOTS - 1)
    with pytest.raises(ConflictError, match="cannot have more"):
        check_capture(WANTED, MACHINE, THERE, MAX_SNAPSHOTS)


def test_a_machine_that_goes_and_one_with_devices_of_the_host() -> None:
    with pytest.raises(ConflictError, match="shop/web is being removed"):
        check_capture(WANTED, MACHINE.model_copy(update={"run": Run.ABSENT}), THERE, 0)
    hardware = HARDWARE.model_copy(update={"devices": (MachineDevice(name="gpu"),)})
    machine = MACHINE.model_copy(update={"hardware": hardware})
    with pytest.raises(InvalidError, match=r"devices of the host \(gpu\); write mode: Disk"):
        check_capture(WANTED, machine, THERE, 0)
    check_capture(WANTED.model_copy(update={"mode": SnapshotMode.DISK}), machine, THERE, 0)


def test_volumes_of_claims_are_left_out_and_no_memory_is_captured_with_them() -> None:
    volume = MachineDisk(name="mail", pool="fast", source=VolumeSource(claim="mail"))
    hardware = HARDWARE.model_copy(update={"disks": (*HARDWARE.disks, volume)})
    machine = MACHINE.model_copy(update={"hardware": hardware})
    with pytest.raises(InvalidError, match=r"volumes of claims \(mail\).*write mode: Disk"):
        check_capture(WANTED, machine, THERE, 0)
    for excluded in ((), ("mail",)):
        wanted = WANTED.model_copy(update={"mode": SnapshotMode.DISK, "exclude_disks": excluded})
        check_capture(wanted, machine, THERE, 0)
        assert included(wanted, machine, (*THERE, replace(THERE[0], name="mail"))) == THERE
    alone = MACHINE.model_copy(update={"hardware": HARDWARE.model_copy(update={"disks": (volume,)})})
    with pytest.raises(InvalidError, match=r"only disks are volumes of claims \(mail\).*take a VolumeSnapshot"):
        check_capture(WANTED, alone, (), 0)
    with pytest.raises(InvalidError, match="no disks nails; it has mail, root"):
        check_capture(WANTED.model_copy(update={"exclude_disks": ("nails",)}), machine, THERE, 0)


def test_a_snapshot_is_never_changed() -> None:
    check_same(KEPT, WANTED.model_copy(update={"present": False}))
    with pytest.raises(ConflictError, match="shop/before on this node already"):
        check_same(KEPT, WANTED.model_copy(update={"name": "after"}))


def test_a_snapshot_stays_for_machines_that_are_restored_or_made() -> None:
    restore = MachineRestore(token=str(uuid.UUID(int=3)), snapshot_uid=WANTED.uid)
    restored = MACHINE.model_copy(update={"restore": restore})
    source = SnapshotDiskSource(snapshot_uid=WANTED.uid, name="root")
    disk = MachineDisk(name="root", pool="fast", source=source)
    made = MACHINE.model_copy(update={"name": "copy", "hardware": HARDWARE.model_copy(update={"disks": (disk,)})})
    with pytest.raises(ConflictError, match=r"made from it: shop/copy, shop/web\."):
        check_removal(WANTED.uid, [(restored, THERE), (made, ())], set())
    check_removal(WANTED.uid, [(restored, THERE), (made, THERE)], {restore.token})
    check_removal(WANTED.uid, [(restored.model_copy(update={"run": Run.ABSENT}), THERE)], set())
    check_removal(str(uuid.UUID(int=9)), [(restored, THERE), (made, ())], set())


@pytest.mark.parametrize("change", [{"run": Run.STOPPED}, {"run": Run.ABSENT}, {"start_token": "again"}])
def test_a_guest_that_shall_stop_is_not_captured(change: dict[str, object]) -> None:
    desired = MACHINE.model_copy(update=change)
    with pytest.raises(UnavailableError, match="asked to shut down"):
        check_wanted(desired, Record())
    assert "asked to shut down" in waits_for(desired, Record(), Phase.RUNNING, active=True)
    assert not waits_for(desired, Record(), Phase.STOPPED, active=False)


def test_a_machine_that_is_off_for_a_moment_is_not_captured_without_its_memory() -> None:
    check_wanted(MACHINE, Record())
    assert not waits_for(MACHINE, Record(), Phase.RUNNING, active=True)
    assert waits_for(MACHINE, Record(), Phase.STARTING, active=False)
    assert not waits_for(MACHINE, Record(), Phase.CRASH_LOOP, active=False)
    restoring = Restoring(token=str(uuid.UUID(int=4)), snapshot_uid=WANTED.uid, memory=True)
    assert "restored" in waits_for(MACHINE, Record(restoring=restoring), Phase.RUNNING, active=True)


def test_what_is_told_from_the_document_to_the_end() -> None:
    assert build_report(KEPT, Seen(waits="It waits.")).phase is SnapshotPhase.PENDING
    assert build_report(KEPT, Seen(waits="It waits.")).message == "It waits."
    going_on = build_report(KEPT, Seen(percent=42))
    assert (going_on.phase, going_on.progress_percent) == (SnapshotPhase.CAPTURING, 42)
    lost = build_report(failed(KEPT, "PoolFull", "no\n room " + "x" * 1000), Seen(percent=42))
    assert (lost.phase, lost.reason, lost.progress_percent) == (SnapshotPhase.FAILED, "PoolFull", None)
    assert lost.message.startswith("no room x")
    assert len(lost.message) == ERROR_LENGTH
    ready = build_report(KEPT.model_copy(update={"captured": CAPTURED}), Seen({DISK: 5}, 7))
    assert (ready.phase, ready.memory_bytes, ready.disks[0].size_bytes) == (SnapshotPhase.READY, 7, 5)
    assert (ready.created_at, ready.parent_uid) == (NOW, None)


def test_what_a_disk_takes_is_told_in_steps() -> None:
    kept = KEPT.model_copy(update={"captured": CAPTURED})
    first = build_report(kept, Seen({DISK: 0}, 0))
    assert build_report(kept, Seen({DISK: LEAST_STEP - 1}, 0), first) == first
    assert build_report(kept, Seen({DISK: LEAST_STEP}, 0), first).disks[0].size_bytes == LEAST_STEP
