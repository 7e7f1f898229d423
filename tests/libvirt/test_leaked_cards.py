"""A network card can be attached again although a libvirtd that died has left its host side, or all of it, in QEMU."""

import asyncio
import json
from typing import Any

import libvirt_qemu
import pytest

from machine_rig import Rig, new_machine
from virtfleet_api.machine import Machine
from virtfleet_node.core.errors import ConflictError

CARD = (
    "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/><alias name='ua-nic-x'/>"
    "</interface>"
)
DEVICE = {"driver": "virtio-net-pci", "netdev": "hostua-nic-x", "id": "ua-nic-x", "bus": "pci.9"}


def ask(rig: Rig, machine: Machine, command: str, **arguments: object) -> object:
    text = json.dumps({"execute": command, "arguments": arguments})
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuMonitorCommand(rig.domain(machine), text, 0))
    assert "error" not in answer, answer
    return answer["return"]


async def attach(rig: Rig, machine: Machine) -> None:
    """Attach as the daemon does: again after a while when it was refused."""
    async with asyncio.timeout(20):
        while True:
            try:
                await rig.hypervisor.attach_device(machine.uid, CARD)
            except ConflictError:
                await asyncio.sleep(0.3)
            else:
                return


@pytest.mark.parametrize("with_device", [False, True], ids=["host-side", "device"])
async def test_a_card_is_attached_though_an_attach_was_cut_off_before(rig: Rig, with_device: bool) -> None:  # noqa: FBT001
    rig.reconnect()
    machine = await rig.put(new_machine(grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    await rig.kill_daemon()  # it would take a card from the guest that the document does not have
    ask(rig, machine, "netdev_add", type="user", id="hostua-nic-x")
    if with_device:
        ask(rig, machine, "device_add", mac="52:54:00:00:00:99", **DEVICE)
    await attach(rig, machine)
    assert "<alias name='ua-nic-x'/>" in rig.domain(machine).XMLDesc()
    mac = ask(rig, machine, "qom-get", path="/machine/peripheral/ua-nic-x", property="mac")
    assert mac == "52:54:00:11:22:33", "the guest has the card that was left behind"
    await rig.restart_daemon()
    await rig.remove(machine)
