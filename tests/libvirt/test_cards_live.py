"""Network cards behind QEMU's own NAT come, go and change under a running guest, as its document says."""

import asyncio
import os
import random
import signal

import libvirt
import pytest
from lxml import etree

from guest_shell import run
from machine_rig import Rig, new_machine
from virtfleet_api.machine import Machine, MachineInterface, Run
from virtfleet_api.network import LinkState, NicModel
from virtfleet_api.report import Phase

SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
PORT = "dddddddd-0000-4000-8000-000000000001"


def card(number: int, **more: object) -> MachineInterface:
    return MachineInterface(**{"name": f"net{number}", "mac": f"52:54:00:00:00:0{number}", **more})


async def put_cards(rig: Rig, machine: Machine, *cards: MachineInterface, **change: object) -> Machine:
    hardware = machine.hardware.model_copy(update={"interfaces": cards})
    return await rig.put(machine, hardware=hardware, **change)


def attached(rig: Rig, machine: Machine) -> dict[str, str]:
    """Return the PCI bus of the cards that libvirt shows, by MAC address; none while it is on its way back."""
    try:
        xml = etree.fromstring(rig.domain(machine).XMLDesc())
    except libvirt.libvirtError:
        return {}
    return {
        found.find("mac").get("address", ""): found.find("address").get("bus", "")
        for found in xml.findall("devices/interface")
    }


def states(rig: Rig, machine: Machine) -> list[tuple[str, str]]:
    report = rig.last(machine)
    return [(card.name, card.state) for card in report.interfaces] if report else []


async def until_cards(rig: Rig, machine: Machine, *numbers: int) -> None:
    wanted = {f"52:54:00:00:00:0{number}" for number in numbers}
    await rig.reports.until(lambda: attached(rig, machine).keys() == wanted, 30, f"cards {numbers}")


async def guest_names(rig: Rig, machine: Machine, count: int) -> str:
    """Return the last digits of the guest's cards, in the guest's order, once there are so many."""
    wait = f"until [ $(ls -d /sys/class/net/e* | wc -l) = {count} ]; do sleep 0.2; done"
    return await run(rig, machine, f"{wait}; cat /sys/class/net/e*/address | cut -c 17 | tr '\\n' ' '")


async def test_cards_come_and_go_under_a_running_guest_and_keep_their_places(rig: Rig) -> None:
    machine = await rig.put(new_machine(interfaces=(card(1),), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    (qemu,) = rig.qemu_pids()

    machine = await put_cards(rig, machine, card(1), card(2), card(3, model=NicModel.E1000E, state=LinkState.DOWN))
    await until_cards(rig, machine, 1, 2, 3)
    before = attached(rig, machine)
    assert (await guest_names(rig, machine, 2)).split() == ["1", "2"]  # the guest has no driver for e1000e
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.interfaces[1].ip_addresses, 60, "its address")
    report = await rig.until_phase(machine, Phase.RUNNING)
    told = [(i.name, i.mac, i.state, i.port) for i in report.interfaces]
    assert told == [
        ("net1", "52:54:00:00:00:01", "up", None),
        ("net2", "52:54:00:00:00:02", "up", None),
        ("net3", "52:54:00:00:00:03", "down", None),
    ]

    machine = await put_cards(rig, machine, card(1, state=LinkState.DOWN), card(2))
    await until_cards(rig, machine, 1, 2)
    pulled = "until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done; cat /sys/class/net/eth1/carrier"
    assert await run(rig, machine, pulled) == "1"
    machine = await put_cards(rig, machine, card(2), card(1))
    assert await run(rig, machine, pulled.replace("= 0", "= 1")) == "1"
    told = [("net2", "up"), ("net1", "up")]
    await rig.reports.until(lambda: states(rig, machine) == told, 20, "the reported cards")

    machine = await put_cards(rig, machine, card(2, mac="52:54:00:00:00:09"), card(3, port=PORT))
    await until_cards(rig, machine, 2)
    waits = ("networks[net2].macAddress",)
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.restart_required == waits, 20, "what waits")
    report = rig.last(machine)
    assert report is not None
    assert (report.phase, report.reason, report.held_interfaces) == (Phase.RUNNING, "WaitingForNetwork", ())
    assert "no Open vSwitch: install" in report.message
    assert rig.qemu_pids() == (qemu,)

    machine = await put_cards(rig, machine, card(1), card(2), card(3), run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPED)
    machine = await rig.put(machine, run=Run.RUNNING)
    await until_cards(rig, machine, 1, 2, 3)
    assert attached(rig, machine) == before, "a restart has moved a card"
    await rig.remove(machine)


async def test_a_machine_on_a_switch_does_not_start_where_there_is_none(rig: Rig) -> None:
    machine = await rig.put(new_machine(interfaces=(card(1, port=PORT),), grace_period_seconds=0))
    waiting = await rig.until_phase(machine, Phase.PROVISIONING)
    assert waiting.reason == "WaitingForNetwork"
    assert waiting.message == (
        "This node has no Open vSwitch: install openvswitch-switch and ovn-host, and start them."
    )
    assert not rig.domain(machine).isActive()
    await put_cards(rig, machine, card(1))
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.remove(machine)


async def test_a_guest_that_does_not_let_go_of_a_card_is_told_of_and_never_forced(rig: Rig) -> None:
    deaf = new_machine(interfaces=(card(1), card(2)), grace_period_seconds=0)
    kernel = deaf.hardware.kernel
    assert kernel is not None
    stubborn = kernel.model_copy(update={"cmdline": f"{kernel.cmdline} pcie_ports=compat acpiphp.disable=1"})
    machine = deaf.model_copy(update={"hardware": deaf.hardware.model_copy(update={"kernel": stubborn})})
    await rig.put(machine)
    await rig.until_console(machine, "/ # ")
    machine = await put_cards(rig, machine, card(1))
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.held_interfaces == ("net2",), 30, "the held card")
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert [i.name for i in report.interfaces] == ["net1", "net2"]
    assert await guest_names(rig, machine, 2) == "1 2"
    machine = await put_cards(rig, machine, card(1), card(2))
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.held_interfaces == (), 30, "nothing held")
    await rig.remove(machine)


@pytest.mark.parametrize("victim", ["daemon", "libvirtd"])
async def test_changes_of_cards_survive_whatever_is_killed(rig: Rig, victim: str) -> None:
    chance = random.Random(f"{SEED} {victim}")
    machine = await rig.put(new_machine(interfaces=(card(1), card(2)), grace_period_seconds=0))
    await rig.until_console(machine, "/ # ")
    cards = (card(1, state=LinkState.DOWN), card(3))
    putting = asyncio.create_task(put_cards(rig, machine, *cards))
    await asyncio.sleep(chance.uniform(0, 0.4))
    await asyncio.gather(putting, return_exceptions=True)
    if victim == "daemon":
        await rig.crash_daemon()
    else:
        (pid,) = rig.node.pids("libvirtd")
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(rig.reconnect)
    hardware = machine.hardware.model_copy(update={"interfaces": cards})
    machine = await rig.put(machine, hardware=hardware)

    def settled() -> bool:
        return states(rig, machine) == [("net1", "down"), ("net3", "up")] and len(attached(rig, machine)) == 2

    await rig.reports.until(settled, 90, f"the cards as the document has them (VIRTFLEET_CHAOS_SEED={SEED})")
    await rig.put(machine, run=Run.ABSENT)
    await rig.until_phase(machine, Phase.ABSENT)
