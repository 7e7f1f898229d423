"""Guests that were frozen go on, whatever was killed and however often they do not answer."""

import pytest

from machine_rig import Rig, new_machine
from source_machines import blank, frozen_mark, make_off, until_not_frozen
from virtfleet_api.machine import Run
from virtfleet_api.report import Phase
from virtfleet_node.core.errors import ConflictError


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
    machine = new_machine(disks=(blank("data"),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    await rig.type(
        machine, "mke2fs /dev/vda >/dev/null 2>&1; mkdir -p /m; mount -t ext2 /dev/vda /m && echo MOUNT$((0))ED"
    )
    await rig.until_console(machine, "MOUNT0ED")
    rig.domain(machine).fsFreeze()
    frozen_mark(rig, machine).touch()
    agent = Agent(rig, monkeypatch, failures)
    await rig.restart_daemon()
    await until_not_frozen(rig, machine)
    assert agent.asked > failures
    await rig.type(machine, "echo x >/m/f && sync && echo WRIT$((0))TEN", 2)
    await rig.until_console(machine, "WRIT0TEN")
    await rig.remove(machine)


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
