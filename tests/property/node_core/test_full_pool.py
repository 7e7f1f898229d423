"""A guest that QEMU has stopped for lack of space: never let go on without room, and soon when there is some."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine_simulator import EPOCH
from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.report import Phase
from virtfleet_node.core.actions import Pause, Resume
from virtfleet_node.core.full_pool import LOOK, Resumes
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import DomainState, Observed, ObservedDomain
from virtfleet_node.core.plan import plan
from virtfleet_node.core.pool_rules import PoolSpace
from virtfleet_node.core.record import Life, Record, Stored
from virtfleet_node.core.report import build_report

GIB = 1 << 30
MACHINE = Machine(
    uid="00000000-0000-4000-8000-000000000001",
    namespace="shop",
    name="web",
    run=Run.RUNNING,
    hardware=Hardware(memory_bytes=GIB),
)
FULL, EMPTY = PoolSpace("fast", 10 * GIB, 10 * GIB, 0), PoolSpace("slow", 10 * GIB, 0, 10 * GIB)


def stopped(*pools: PoolSpace, run: Run = Run.RUNNING, resumes: Resumes | None = None) -> Observed:
    machine = MACHINE.model_copy(update={"run": run})
    stored = Stored(desired=machine, record=Record(life=Life.RUNNING, started_at=EPOCH))
    domain = ObservedDomain(DomainState.PAUSED, disk_error=True, full_disks=("vda",), stored=stored)
    return Observed(domain, paused_at=EPOCH, full_pools=pools, resumes=resumes or Resumes())


@given(st.integers(0, 10_000), st.sampled_from([(FULL,), (FULL, EMPTY), (PoolSpace("gone"),)]))
def test_without_room_it_stays_and_is_looked_at_soon(seconds: int, pools: tuple[PoolSpace, ...]) -> None:
    now = EPOCH + timedelta(seconds=seconds)
    wanted = plan(MACHINE, stopped(*pools), now)
    assert wanted.actions == ()
    assert wanted.wake_at is not None
    assert now < wanted.wake_at <= now + LOOK


def test_with_room_it_goes_on_within_two_seconds() -> None:
    assert plan(MACHINE, stopped(EMPTY), EPOCH).wake_at == EPOCH + LOOK
    assert plan(MACHINE, stopped(EMPTY), EPOCH + LOOK).actions == (Resume(),)


@given(st.integers(1, 100), st.integers(0, 60))
def test_room_that_is_none_is_tried_ever_more_seldom(count: int, seconds: int) -> None:
    tried = Resumes(count, EPOCH)
    now = EPOCH + timedelta(seconds=seconds)
    goes_on = plan(MACHINE, stopped(EMPTY, resumes=tried), now).actions == (Resume(),)
    assert goes_on == (seconds >= min(2 * 2**count, 30))


def test_a_guest_that_shall_be_paused_is_not_let_go_on() -> None:
    paused = MACHINE.model_copy(update={"run": Run.PAUSED})
    assert plan(paused, stopped(EMPTY, run=Run.PAUSED), EPOCH + LOOK).actions == ()
    running = replace(stopped(run=Run.PAUSED).domain, state=DomainState.RUNNING, disk_error=False, full_disks=())
    assert plan(paused, Observed(running), EPOCH).actions == (Pause(),)


@pytest.mark.parametrize(
    ("pools", "reason", "said"),
    [
        ((FULL,), "PoolFull", "Pool fast of the node is full: free space there, and the guest goes on by itself"),
        ((FULL, EMPTY), "PoolFull", "Pools fast and slow of the node are full"),
        ((), "DiskError", "A disk could not be written"),
    ],
)
def test_the_report_names_the_pool(pools: tuple[PoolSpace, ...], reason: str, said: str) -> None:
    report = build_report(MACHINE, stopped(*pools), GuestFacts(), EPOCH)
    assert (report.phase, report.reason) == (Phase.PAUSED, reason)
    assert report.message.startswith(said)
