"""What a guest that went on from memory is told, and when its agent is given up."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_node.core.actions import WriteRecord
from virtfleet_node.core.due import Change
from virtfleet_node.core.observed import Asking, DomainState, Observed, ObservedDomain
from virtfleet_node.core.plan_woken import PATIENCE, plan_woken
from virtfleet_node.core.record import Record, Stored
from virtfleet_node.core.restore_actions import CLOCK, MACHINE_ID, SetClock, SetMachineId

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)


@pytest.fixture
def woken() -> Observed:
    uid = str(uuid.UUID(int=1))
    hardware = Hardware(vcpus=1, memory_bytes=1 << 27)
    machine = Machine(uid=uid, namespace="shop", name="web-1", run=Run.RUNNING, hardware=hardware)
    record = Record(started_at=NOW, clock_behind=True, machine_id_due=True)
    domain = ObservedDomain(state=DomainState.RUNNING, stored=Stored(desired=machine, record=record))
    return Observed(domain=replace(domain, agent_connected=True))


def given_up(changes: list[Change]) -> tuple[str, datetime | None]:
    (change,) = (change for change in changes if isinstance(change.action, WriteRecord))
    assert isinstance(change.action, WriteRecord)
    assert not change.action.record.machine_id_due
    return change.action.record.machine_id_error, change.due


def test_an_agent_is_asked_at_once_and_given_up_later(woken: Observed) -> None:
    changes = list(plan_woken(woken, LATER))
    assert [change.action for change in changes if change.due is None] == [SetClock(), SetMachineId()]
    assert given_up(changes) == ("its agent did not answer within 60 s", NOW + PATIENCE)


def test_an_agent_that_does_not_answer_is_asked_again_until_it_is_given_up(woken: Observed) -> None:
    asked = replace(woken, asked={key: Asking(LATER, LATER) for key in (CLOCK, MACHINE_ID)})
    assert not [change for change in plan_woken(asked, LATER) if change.due is None]
    again = LATER + timedelta(seconds=20)
    assert SetMachineId() in [change.action for change in plan_woken(asked, again) if change.due is None]
    end = list(plan_woken(asked, NOW + PATIENCE))
    assert SetMachineId() not in [change.action for change in end]
    assert given_up(end)[1] is None


def test_a_guest_without_an_agent_is_waited_for_and_given_up(woken: Observed) -> None:
    silent = replace(woken, domain=replace(woken.domain, agent_connected=False))
    assert given_up(list(plan_woken(silent, LATER)))[1] == NOW + PATIENCE
    assert given_up(list(plan_woken(silent, NOW + PATIENCE)))[1] is None


@pytest.mark.parametrize("state", [DomainState.PAUSED, DomainState.OFF])
def test_a_guest_that_does_not_run_is_asked_nothing(woken: Observed, state: DomainState) -> None:
    still = replace(woken, domain=replace(woken.domain, state=state))
    assert list(plan_woken(still, NOW + PATIENCE)) == []
