"""What a user reads of the space that machines take: in steps, and with a sentence when a pool stops a guest."""

from datetime import UTC, datetime, timedelta

import pytest

from virtfleet_api.report import DiskReport, MachineReport, Phase
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_operator.core.events import machine_events
from virtfleet_operator.core.summarise import MachineFacts, summarise_machine
from virtfleet_operator.core.writes import ALLOCATION_INTERVAL, machine_write_due

UID = "11111111-2222-3333-4444-555555555555"
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
META = ObjectMeta(name="web-1", namespace="shop", uid=UID, generation=1)
MIB = 1 << 20
SENTENCE = "Pool default of the node is full: free space there."


def status(
    allocated: int, old: VirtualMachineStatus | None = None, phase: Phase = Phase.RUNNING, reason: str = ""
) -> VirtualMachineStatus:
    disk = DiskReport(name="root", pool="default", target="vda", capacity_bytes=1 << 30, allocated_bytes=allocated)
    report = MachineReport(
        uid=UID,
        namespace="shop",
        name="web-1",
        generation=1,
        phase=phase,
        reason=reason,
        message=SENTENCE if reason else "",
        disks=(disk,),
    )
    return summarise_machine(META, old or VirtualMachineStatus(), MachineFacts(node_name="a", report=report), NOW)


def test_what_a_disk_takes_is_shown_in_whole_mebibytes() -> None:
    assert str(status(200_704).disks[0].allocated) == "1Mi"
    assert status(0).disks[0].allocated is None


@pytest.mark.parametrize(
    ("allocated", "shown"), [(10 * MIB, "1Mi"), (20 * MIB, "20Mi"), (17 * MIB + 1, "18Mi"), (0, "1Mi")]
)
def test_it_stays_as_written_until_it_moves_by_a_step(allocated: int, shown: str) -> None:
    old = status(MIB)
    assert str(status(allocated, old).disks[0].allocated) == shown


def test_a_guest_that_writes_makes_the_operator_write_seldom() -> None:
    old, new = status(MIB), status(100 * MIB, status(MIB))
    assert machine_write_due(old, new, NOW, NOW) == NOW + ALLOCATION_INTERVAL
    assert machine_write_due(old, new, NOW, NOW - timedelta(hours=1)) == NOW
    assert machine_write_due(old, status(100 * MIB, old, Phase.PAUSED), NOW, NOW) == NOW


def test_a_guest_that_a_full_pool_stopped_says_so() -> None:
    stopped = status(MIB, phase=Phase.PAUSED, reason="PoolFull")
    said = {c.type: (c.status.value, c.reason, c.message) for c in stopped.conditions}
    assert said["Ready"] == ("False", "PoolFull", SENTENCE)
    assert said["Paused"] == ("True", "PoolFull", SENTENCE)


def test_an_event_warns_of_it_and_not_of_a_pause_that_was_asked_for() -> None:
    running = status(MIB)
    (warned,) = machine_events(running, status(MIB, phase=Phase.PAUSED, reason="PoolFull"))
    assert (warned.type, warned.reason, warned.message) == ("Warning", "PoolFull", SENTENCE)
    (told,) = machine_events(running, status(MIB, phase=Phase.PAUSED))
    assert (told.type, told.reason) == ("Normal", "Paused")
