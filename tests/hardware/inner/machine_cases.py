"""The node daemon on the nested host."""

from machine_rig import Rig, new_machine
from this_host import READY
from virtfleet_api.report import Phase


async def test_a_machine_runs(rig: Rig) -> None:
    machine = new_machine()
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.until_console(machine, READY)
    await rig.remove(machine)
