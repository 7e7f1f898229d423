"""The display of a guest: seen by VNC through a connection that libvirt hands over, and by nothing else."""

import asyncio
from pathlib import Path

import pytest

from captures import capture, restore
from machine_rig import Rig, new_machine
from pictures import are_alike, count_colours
from source_machines import blank
from virtfleet_api.display import DisplayModel
from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import Phase
from virtfleet_cli.rfb import Picture, look
from virtfleet_node.core.errors import ConflictError

DEADLINE_SECONDS = 30
LISTENS_TCP = "0A"
LISTENS_UNIX = "00010000"
"""How /proc/net shows that a socket takes connections."""


async def start(rig: Rig, model: DisplayModel | None, **change: object) -> Machine:
    machine = await rig.put(new_machine(display=model, **change))
    await rig.until_console(machine, "/ # ")
    return machine


async def see(rig: Rig, machine: Machine) -> Picture:
    display = await rig.daemon.open_display(machine.uid)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await look(display.read, display.write)
    finally:
        await display.close()


def listening(pid: int) -> list[str]:
    """Return what a process takes connections on: addresses, and names of UNIX sockets."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    own = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    network = Path(f"/proc/{pid}/net")
    lines = [line.split() for name in ("tcp", "tcp6") for line in (network / name).read_text().splitlines()[1:]]
    found = [words[1] for words in lines if words[3] == LISTENS_TCP and words[9] in own]
    lines = [line.split() for line in (network / "unix").read_text().splitlines()[1:]]
    return found + [words[7] for words in lines if words[3] == LISTENS_UNIX and words[6] in own]


@pytest.mark.parametrize(
    ("model", "machine_type"), [(DisplayModel.VGA, "q35"), (DisplayModel.VIRTIO, "q35"), (DisplayModel.VGA, "i440fx")]
)
async def test_a_viewer_sees_the_guest_and_nothing_listens(rig: Rig, model: DisplayModel, machine_type: str) -> None:
    machine = await start(rig, model, machine_type=machine_type)
    picture = await see(rig, machine)
    assert (picture.width, picture.height) >= (640, 400)
    assert count_colours(picture) > 1, "the firmware has written something"
    assert (await rig.until_phase(machine, Phase.RUNNING)).display == model
    (pid,) = rig.qemu_pids()
    names = listening(pid)
    assert names, "the monitor's socket is seen"
    assert all(name.endswith(("/monitor.sock", "org.qemu.guest_agent.0")) for name in names), names
    await rig.remove(machine)


async def test_two_viewers_see_the_same_and_the_next_daemon_opens_it_again(rig: Rig) -> None:
    machine = await start(rig, DisplayModel.VGA)
    first = await rig.daemon.open_display(machine.uid)
    before = await look(first.read, first.write)
    assert are_alike(await see(rig, machine), before)
    await first.write(b"\x03\x00" + bytes(4) + before.width.to_bytes(2) + before.height.to_bytes(2))
    assert await first.read(), "the second viewer has not ended the first"
    await rig.restart_daemon()
    await rig.until_phase(machine, Phase.RUNNING)
    assert count_colours(await see(rig, machine)) > 1
    await rig.put(machine, run=Run.STOPPED, grace_period_seconds=0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await first.read():
            pass
    await first.close()
    await rig.until_phase(machine, Phase.STOPPED)
    with pytest.raises(ConflictError, match="The machine is Stopped; only a running guest has a display"):
        await rig.daemon.open_display(machine.uid)
    await rig.remove(machine)


async def test_a_display_comes_and_goes_with_a_restart(rig: Rig) -> None:
    machine = await start(rig, None)
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert (report.display, report.restart_required) == ("", ())
    with pytest.raises(ConflictError, match=r"add `display: \{\}` to the spec"):
        await rig.daemon.open_display(machine.uid)
    wanted = machine.hardware.model_copy(update={"display": DisplayModel.VGA})
    machine = await rig.put(machine, hardware=wanted)
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.restart_required == ("display",), 20, "the wait")
    machine = await rig.put(machine, start_token="again")
    await rig.until_console(machine, "READY", 2)
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.display == "vga", 20, "its display")
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert report.restart_required == ()
    assert count_colours(await see(rig, machine)) > 1
    await rig.remove(machine)


async def test_a_guest_goes_on_from_memory_with_its_display(rig: Rig) -> None:
    machine = await start(rig, DisplayModel.VGA, disks=(blank("one"),), grace_period_seconds=0)
    before = await see(rig, machine)
    snapshot = await capture(rig, machine)
    asked = restore(snapshot)
    machine = await rig.put(machine, restore=asked)
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.restore and r.restore.done, 60, "the restore")
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert report.restore is not None
    assert (report.restore.warm, report.restore.message, report.display) == (True, "", "vga")
    assert are_alike(await see(rig, machine), before)
    assert rig.console(machine).count("READY") == 1
    await rig.remove(machine)
