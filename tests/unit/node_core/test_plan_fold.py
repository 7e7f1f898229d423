"""When layers of disks are merged, and what comes first."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import (
    BlankSource,
    ExistingSource,
    Hardware,
    Machine,
    MachineDisk,
    MachineRestore,
    Run,
    SnapshotDiskSource,
)
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.core.actions import FlattenDisk, MergeLayers, ResizeDisk
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import AttachedDisk, DomainState, Folding, Observed, ObservedDomain
from virtfleet_node.core.plan import plan
from virtfleet_node.core.record import Life, Record, Stored
from virtfleet_node.core.report import build_report
from virtfleet_node.core.stored import StoredDisk

NOW = datetime(2030, 1, 1, tzinfo=UTC)
UID, SNAPSHOT = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "ab")
DISK = MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=1 << 30)
FILE = Path("/pool/disks") / UID / "root.1.qcow2"


def machine(run: Run, **change: object) -> Machine:
    hardware = Hardware(memory_bytes=1 << 27, disks=(DISK,))
    fields = {"uid": UID, "namespace": "n", "name": "m", "run": run, "hardware": hardware, **change}
    return Machine.model_validate(fields)


def seen(desired: Machine, capacity: int = 1 << 30) -> Observed:
    """Return a machine that is as it is wanted, but for layers that nobody names."""
    on = desired.run is Run.RUNNING
    record = Record(life=Life.RUNNING if on else Life.OFF, started_at=NOW if on else None)
    stored = Stored(desired=desired, started=desired.hardware if on else None, record=record)
    attached = (AttachedDisk(file=str(FILE), target="vda"),) if on else ()
    domain = ObservedDomain(DomainState.RUNNING if on else DomainState.OFF, stored=stored, disks=attached)
    disk = StoredDisk("default", "root", FILE, ImageFormat.QCOW2, capacity, layers=(FILE.with_name("root.qcow2"),))
    return Observed(domain=domain, disks=(disk,), folding=Folding("default", "root"))


def merges(desired: Machine, observed: Observed) -> bool:
    return MergeLayers() in plan(desired, observed, NOW).actions


def test_layers_are_merged_of_machines_that_are_on_and_off() -> None:
    for run in (Run.RUNNING, Run.STOPPED):
        assert merges(machine(run), seen(machine(run)))
        assert not merges(machine(run), replace(seen(machine(run)), folding=None))
        assert not merges(machine(run), replace(seen(machine(run)), is_copied=True))
        assert not merges(machine(run), replace(seen(machine(run)), disks_in_use=True))
        assert merges(machine(run), replace(seen(machine(run)), disks_in_use=True, merging="Merging: 1%."))


def test_a_merge_waits_for_room_and_says_so() -> None:
    observed = replace(seen(machine(Run.STOPPED)), folding=Folding("default", "root", "Pool default is full."))
    assert not merges(machine(Run.STOPPED), observed)
    assert build_report(machine(Run.STOPPED), observed, GuestFacts(), NOW).disks[0].message == "Pool default is full."


def test_a_disk_grows_before_its_layers_are_merged() -> None:
    desired = machine(Run.RUNNING)
    actions = plan(desired, seen(desired, capacity=1 << 29), NOW).actions
    assert ResizeDisk("vda", 1 << 30) in actions
    assert MergeLayers() not in actions


def test_a_guest_that_waits_for_room_and_one_that_shall_stop_are_left_alone() -> None:
    desired = machine(Run.RUNNING)
    observed = seen(desired)
    paused = replace(observed.domain, state=DomainState.PAUSED, disk_error=True)
    assert not merges(desired, replace(observed, domain=paused))
    for run in (Run.STOPPED, Run.ABSENT):
        assert not merges(machine(run), observed)


def test_a_merge_ends_for_a_restore() -> None:
    restore = MachineRestore(token=UID, snapshot_uid=SNAPSHOT)
    for run in (Run.RUNNING, Run.STOPPED):
        desired = machine(run, restore=restore)
        going_on = replace(seen(desired), disks_in_use=True, merging="Merging: 1%.")
        assert merges(machine(run), going_on)
        assert not merges(desired, going_on)


@pytest.mark.parametrize(
    "source",
    [ExistingSource(clone=Clone.FULL), SnapshotDiskSource(snapshot_uid=SNAPSHOT, name="root", clone=Clone.FULL)],
)
def test_a_full_disk_above_another_machines_layers_is_made_independent_before_any_merge(source: object) -> None:
    full = DISK.model_copy(update={"source": source})
    desired = machine(Run.STOPPED, hardware=Hardware(memory_bytes=1 << 27, disks=(full,)))
    observed = seen(desired)
    assert plan(desired, observed, NOW).actions == (MergeLayers(),), "layers of its own are no others"
    foreign = replace(observed.disks[0], layers=(Path("/pool/disks") / SNAPSHOT / "root.qcow2",))
    actions = plan(desired, replace(observed, disks=(foreign,)), NOW).actions
    assert actions == (FlattenDisk("default", "root", None),)
