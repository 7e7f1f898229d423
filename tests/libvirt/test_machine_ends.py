"""What follows when a guest ends by itself: its restart policy decides, whoever was looking."""

import os
import signal

import libvirt
import pytest

from machine_rig import Rig, new_machine
from virtfleet_api.machine import Machine, Restart, Run
from virtfleet_api.report import Phase, StopReason

POWEROFF = "poweroff -f"
PANIC = "echo c >/proc/sysrq-trigger"


async def start(rig: Rig, restart: Restart) -> Machine:
    machine = new_machine(restart=restart)
    await rig.put(machine)
    await rig.until_console(machine, "/ # ")
    return machine


async def type_and_end(rig: Rig, machine: Machine, text: str) -> None:
    console = await rig.daemon.open_console(machine.uid)
    await console.write(text.encode() + b"\n")
    while await console.read():
        pass
    await console.close()


def kill_qemu(rig: Rig) -> None:
    (pid,) = rig.qemu_pids()
    os.kill(pid, signal.SIGKILL)


async def test_always_starts_again_after_a_shutdown_in_the_guest(rig: Rig) -> None:
    machine = await start(rig, Restart.ALWAYS)
    await type_and_end(rig, machine, POWEROFF)
    await rig.until_console(machine, "READY", count=2)
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert (report.restarts, report.last_stop) == (1, StopReason.GUEST_SHUTDOWN)
    await rig.remove(machine)


@pytest.mark.parametrize("restart", [Restart.ON_FAILURE, Restart.NEVER])
async def test_others_stay_off_after_a_shutdown_in_the_guest(rig: Rig, restart: Restart) -> None:
    machine = await start(rig, restart)
    await type_and_end(rig, machine, POWEROFF)
    report = await rig.until_phase(machine, Phase.STOPPED)
    assert (report.reason, report.last_stop) == ("GuestShutdown", StopReason.GUEST_SHUTDOWN)
    await rig.restart_daemon()
    assert (await rig.until_phase(machine, Phase.STOPPED)).last_stop is StopReason.GUEST_SHUTDOWN
    machine = await rig.put(machine, start_token="again")
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.remove(machine)


async def test_a_panic_is_a_crash(rig: Rig) -> None:
    machine = await start(rig, Restart.NEVER)
    await type_and_end(rig, machine, PANIC)
    report = await rig.until_phase(machine, Phase.FAILED)
    assert report.last_stop is StopReason.GUEST_CRASHED
    await rig.remove(machine)


async def test_a_killed_qemu_is_restarted_at_once_and_then_after_a_pause(rig: Rig) -> None:
    machine = await start(rig, Restart.ON_FAILURE)
    kill_qemu(rig)
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.restarts == 1, 20, "the first end")
    report = await rig.until_phase(machine, Phase.RUNNING)
    assert report.last_stop is StopReason.QEMU_FAILED
    assert Phase.CRASH_LOOP not in rig.phases(machine)
    kill_qemu(rig)
    report = await rig.until_phase(machine, Phase.CRASH_LOOP)
    assert report.next_start_at is not None
    assert report.restarts == 2
    machine = await rig.put(machine, run=Run.STOPPED)
    report = await rig.until_phase(machine, Phase.STOPPED)
    assert report.restarts == 0
    await rig.remove(machine)


@pytest.mark.parametrize(
    ("end", "reason"),
    [("poweroff", StopReason.GUEST_SHUTDOWN), ("kill", StopReason.QEMU_FAILED), ("destroy", StopReason.QEMU_FAILED)],
)
async def test_the_reason_is_known_after_the_daemon_was_down(rig: Rig, end: str, reason: StopReason) -> None:
    machine = await start(rig, Restart.NEVER)
    console = await rig.daemon.open_console(machine.uid)
    await rig.kill_daemon()
    if end == "poweroff":
        await console.write(POWEROFF.encode() + b"\n")
    elif end == "kill":
        kill_qemu(rig)
    else:
        rig.domain(machine).destroy()
    await rig.reports.until(lambda: not rig.domain(machine).isActive(), 20, "the end")
    await console.close()
    await rig.restart_daemon()
    await rig.reports.until(lambda: (r := rig.last(machine)) and r.last_stop is reason, 20, reason)
    await rig.remove(machine)


async def test_a_stop_that_was_under_way_is_known_as_requested_after_the_daemon_was_down(rig: Rig) -> None:
    machine = await start(rig, Restart.ALWAYS)
    domain = rig.domain(machine)
    domain.suspend()
    machine = await rig.put(machine, run=Run.STOPPED)
    await rig.until_phase(machine, Phase.STOPPING)
    await rig.reports.until(lambda: "stoppingSince" in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), 20, "the mark")
    await rig.kill_daemon()
    domain.destroy()
    await rig.restart_daemon()
    report = await rig.until_phase(machine, Phase.STOPPED)
    assert report.last_stop is StopReason.REQUESTED
    await rig.remove(machine)


async def test_after_a_crash_of_the_node_what_ran_is_started_and_what_ended_is_not(rig: Rig) -> None:
    runs = await start(rig, Restart.NEVER)
    ended = await start(rig, Restart.NEVER)
    await type_and_end(rig, ended, POWEROFF)
    await rig.until_phase(ended, Phase.STOPPED)
    rig.node.hold("libvirtd")
    for pid in (*rig.node.pids("libvirtd"), *rig.qemu_pids()):
        os.kill(pid, signal.SIGKILL)
    # A booted host has no run-time state either; without it libvirtd knows nothing of the guests it had.
    for left in (rig.node.directory / "run" / "qemu").glob("vf-*"):
        left.unlink()
    rig.node.release("libvirtd")
    await rig.until_console(runs, "READY", count=2)
    report = await rig.until_phase(runs, Phase.RUNNING)
    assert (report.last_stop, report.restarts) == (StopReason.NODE_RESTARTED, 0)
    assert (await rig.until_phase(ended, Phase.STOPPED)).last_stop is StopReason.GUEST_SHUTDOWN
    rig.reconnect()
    await rig.remove(runs)
    await rig.remove(ended)
