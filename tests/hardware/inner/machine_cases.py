"""The node daemon on the nested host."""

from machine_rig import Rig, new_machine
from this_host import READY
from virtfleet_api.machine import Run
from virtfleet_api.report import Phase


async def test_a_machine_runs_and_stops_when_asked(rig: Rig) -> None:
    machine = new_machine()
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.until_console(machine, READY)
    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED, 29)  # within the grace period, by the power button
    assert "L2-OFF" in rig.console(machine)
    await rig.remove(machine)
