"""Guests that were frozen go on, whatever was killed and however often they do not answer."""

import asyncio

import pytest

from machine_rig import Rig, new_machine
from source_machines import blank, frozen_mark, make_off, until_not_frozen
from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import Phase
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.hypervisor.calls import AGENT_SECONDS


class Agent:
    """Does not answer for some time when a guest shall go on."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
        self.asked = 0
        self._failures = failures
        self._thaw = rig.hypervisor.thaw
        monkeypatch.setattr(rig.hypervisor, "thaw", self.thaw)

    async def thaw(self, uid: str) -> None:
        self.asked += 1
        if self.asked <= self._failures:
            raise ConflictError("Guest agent is not responding")
        await self._thaw(uid)


@pytest.mark.parametrize("failures", [0, 2])
async def test_a_guest_that_was_frozen_when_the_daemon_was_killed_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    machine = await make_mounted(rig)
    rig.domain(machine).fsFreeze()
    frozen_mark(rig, machine).touch()
    agent = Agent(rig, monkeypatch, failures)
    await rig.restart_daemon()
    await until_not_frozen(rig, machine)
    assert agent.asked > failures
    await until_it_writes(rig, machine)
    await rig.remove(machine)


async def test_what_the_agent_told_stays_while_its_guest_is_frozen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(rig, monkeypatch, failures=1000)
    machine = await make_mounted(rig)
    await rig.reports.until(lambda: rig.last(machine).guest, 30, "what the agent tells")
    told = rig.last(machine).guest
    rig.domain(machine).fsFreeze()
    frozen_mark(rig, machine).touch()
    rig.daemon.agent_connected(machine.uid)  # it is asked at once, and twice more within four seconds
    await rig.reports.until(lambda: agent.asked >= 4, 30, "the guest to be asked again and again")
    assert rig.last(machine).guest == told
    monkeypatch.undo()
    await until_it_writes(rig, machine)
    await rig.remove(machine)


async def test_a_guest_whose_agent_hangs_goes_on_once_that_answers(rig: Rig) -> None:
    machine = await make_mounted(rig)
    rig.domain(machine).fsFreeze()
    await rig.type(machine, "kill -STOP $(pidof qemu-ga); echo STOP$((0))PED", 2)
    await rig.until_console(machine, "STOP0PED")
    now = asyncio.get_running_loop().time
    began = now()
    assert await rig.hypervisor.read_guest_facts(machine.uid) == GuestFacts()
    assert now() - began < 4 * AGENT_SECONDS, "an agent that does not answer one question is asked no other"
    frozen_mark(rig, machine).touch()
    with pytest.raises(ConflictError):
        await rig.hypervisor.thaw(machine.uid)
    assert frozen_mark(rig, machine).exists()
    await rig.type(machine, "kill -CONT $(pidof qemu-ga)", 3)
    await until_it_writes(rig, machine, prompts=4)
    await rig.remove(machine)


async def make_mounted(rig: Rig) -> Machine:
    """Return a machine that runs and has a file system on a disk."""
    machine = new_machine(disks=(blank("data"),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    mount = "mke2fs /dev/vda >/dev/null 2>&1; mkdir -p /m; mount -t ext2 /dev/vda /m && echo MOUNT$((0))ED"
    await rig.type(machine, mount)
    await rig.until_console(machine, "MOUNT0ED")
    return machine


async def until_it_writes(rig: Rig, machine: Machine, prompts: int = 2) -> None:
    """Wait until the guest is not frozen any more."""
    await until_not_frozen(rig, machine)
    await rig.type(machine, "echo x >/m/f && sync && echo WRIT$((0))TEN", prompts)
    await rig.until_console(machine, "WRIT0TEN")


async def test_a_guest_that_is_off_or_was_started_anew_is_not_frozen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(rig, monkeypatch, failures=1000)
    machine = await make_off(rig)
    mark = frozen_mark(rig, machine)
    mark.touch()
    await until_not_frozen(rig, machine)

    await rig.put(machine, run=Run.RUNNING)
    started_at = (await rig.until_phase(machine, Phase.RUNNING)).started_at
    assert started_at is not None
    mark.write_text("2020-01-01T00:00:00+00:00")
    await until_not_frozen(rig, machine)

    mark.write_text(started_at.isoformat())
    asked = agent.asked
    await rig.reports.until(lambda: agent.asked >= asked + 3, 30, "the guest to be asked again and again")
    assert mark.exists()
    await rig.remove(machine)
