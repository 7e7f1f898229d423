"""An image stays as long as a machine of the node is made from it, whatever the operator thinks."""

import pytest

from machine_rig import KERNEL, Rig, new_machine
from virtfleet_api.image import Image
from virtfleet_api.machine import Run
from virtfleet_api.report import Phase
from virtfleet_node.core.errors import ConflictError


async def test_the_kernel_of_a_machine_that_is_off_is_kept(rig: Rig) -> None:
    machine = new_machine(run=Run.STOPPED)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.STOPPED)
    unwanted = Image(uid=KERNEL, namespace="default", name="tiny", pool="default", present=False)
    with pytest.raises(ConflictError, match=machine.uid):
        await rig.daemon.put_image(unwanted)
    await rig.remove(machine)
    assert (await rig.daemon.put_image(unwanted)).uid == KERNEL
