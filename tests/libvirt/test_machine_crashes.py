"""The daemon or libvirtd dies at any moment; what was asked for comes about all the same."""

import asyncio
import itertools
import os
import re
import signal
from collections.abc import Iterator

import pytest

from machine_rig import DISK, Rig, new_machine
from virtfleet_api.machine import ImageDiskSource, Machine, MachineDisk, Restart, Run
from virtfleet_api.report import Phase
from virtfleet_node.agent import carry_out as carrying
from virtfleet_node.agent import reconcile
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.actions import Action
from virtfleet_node.core.desired.domain import build_placeholder_xml
from virtfleet_node.core.desired.guest import DomainType
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.record import new_stored


class Crash:
    """Lets the daemon die after a number of actions: the last is carried out, and nothing is remembered of it."""

    def __init__(self) -> None:
        self.after: int | None = None
        self.happened = asyncio.Event()
        self.done: list[str] = []

    async def carry_out(self, around: Surroundings, entry: Entry, desired: Machine, action: Action) -> None:
        if self.after == 0:
            self.happened.set()
            await asyncio.Event().wait()
        await carrying.carry_out(around, entry, desired, action)
        self.done.append(str(action))
        if self.after is not None:
            self.after -= 1


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crash]:
    made = Crash()
    monkeypatch.setattr(reconcile, "carry_out", made.carry_out)
    yield made
    made.after = None


def with_disk() -> Machine:
    disk = MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=DISK))
    return new_machine(disks=(disk,), restart=Restart.NEVER, grace_period_seconds=0)


async def crash_after(rig: Rig, crash: Crash, number: int, machine: Machine, **change: object) -> Machine:
    """Put a document, let the daemon die after some actions, and start it again."""
    crash.after = number
    machine = await rig.put(machine, **change)
    await asyncio.wait_for(crash.happened.wait(), 30)
    await rig.kill_daemon()
    crash.after = None
    crash.happened.clear()
    await rig.restart_daemon()
    return machine


@pytest.mark.parametrize("number", range(2))
async def test_dies_after_each_action_of_a_start(rig: Rig, crash: Crash, number: int) -> None:
    machine = await crash_after(rig, crash, number, with_disk())
    await rig.until_phase(machine, Phase.RUNNING)
    assert len(rig.qemu_pids()) == 1
    await rig.remove(machine)


DELETION = ["write record (Running, 0 failures)", "destroy", "remove disk default/root", "remove media", "undefine"]


@pytest.mark.parametrize("number", range(len(DELETION)))
async def test_dies_after_each_action_of_a_deletion(rig: Rig, crash: Crash, number: int) -> None:
    machine = with_disk()
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    crash.done.clear()
    machine = await crash_after(rig, crash, number, machine, run=Run.ABSENT)
    await rig.reports.until(lambda: machine.uid not in domains(rig), 30, "the domain to go")
    assert rig.disks.read_disks(machine.uid) == ()
    assert not (rig.state / "machines" / machine.uid).exists()
    assert rig.qemu_pids() == ()
    report = await rig.daemon.put_machine(machine)
    assert report.phase is Phase.ABSENT
    assert set(DELETION) <= set(crash.done)


@pytest.mark.parametrize("number", range(3))
async def test_dies_after_each_action_of_a_restart(rig: Rig, crash: Crash, number: int) -> None:
    machine = with_disk()
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    (before,) = rig.qemu_pids()
    crash.done.clear()
    machine = await crash_after(rig, crash, number, machine, start_token="again")
    await rig.reports.until(lambda: rig.qemu_pids() not in {(), (before,)}, 30, "the new QEMU")
    await rig.until_phase(machine, Phase.RUNNING)
    assert crash.done.count("start") == 1
    await rig.remove(machine)


async def test_libvirtd_is_killed_again_and_again(rig: Rig) -> None:
    machine = new_machine(grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    qemu = rig.qemu_pids()
    for _ in range(3):
        told = len(rig.reports.connected)
        for pid in rig.node.pids("libvirtd"):
            os.kill(pid, signal.SIGKILL)
        await rig.reports.until(lambda told=told: rig.reports.connected[told:][:2] == [False, True], 30, "to be back")
    assert rig.qemu_pids() == qemu
    rig.reconnect()
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.remove(machine)


async def test_libvirtd_is_killed_while_machines_start_and_go(rig: Rig) -> None:
    machines = [new_machine(grace_period_seconds=0) for _ in range(4)]
    for machine in machines:
        await rig.put(machine)
    for pid in rig.node.pids("libvirtd"):
        os.kill(pid, signal.SIGKILL)
    for machine in machines:
        await rig.until_phase(machine, Phase.RUNNING)
    assert len(rig.qemu_pids()) == len(machines)
    for machine in machines:
        await rig.put(machine, run=Run.ABSENT)
    for pid in rig.node.pids("libvirtd"):
        os.kill(pid, signal.SIGKILL)
    for machine in machines:
        await rig.until_phase(machine, Phase.ABSENT)
    assert rig.qemu_pids() == ()
    rig.reconnect()
    assert not domains(rig) & {machine.uid for machine in machines}


async def test_libvirtd_died_within_a_start_before_there_was_a_qemu(rig: Rig) -> None:
    """Its successor would call the domain paused for ever, and answer nothing about it."""
    machine = new_machine(grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    before = rig.qemu_pids()
    status = rig.node.directory / "run" / "qemu" / f"vf-{machine.uid}.xml"
    running = status.read_text()
    rig.node.hold("libvirtd")
    for pid in (*rig.node.pids("libvirtd"), *before):
        os.kill(pid, signal.SIGKILL)
    job = "<job type='none' async='start' phase='none' flags='0x0'/>"
    starting = re.sub(r"<domstatus [^>]*>", "<domstatus state='paused' reason='starting up' pid='0'>", running)
    assert starting != running
    status.write_text(starting.replace("</qemuCaps>", f"</qemuCaps>{job}"))
    rig.node.release("libvirtd")
    await rig.reports.until(lambda: rig.qemu_pids() not in {(), before}, 60, "the new QEMU")
    await rig.until_phase(machine, Phase.RUNNING)
    rig.reconnect()
    await rig.remove(machine)


async def test_a_domain_that_libvirtd_has_again_is_removed(rig: Rig) -> None:
    machine = new_machine(run=Run.ABSENT)
    rig.libvirt.defineXML(build_placeholder_xml(new_stored(machine), DomainType.QEMU))
    for pid in rig.node.pids("libvirtd"):
        os.kill(pid, signal.SIGKILL)
    await rig.until_phase(machine, Phase.ABSENT)
    rig.reconnect()
    assert machine.uid not in domains(rig)


async def test_a_throw_away_guest_that_libvirtd_has_forgotten_to_destroy_goes(rig: Rig) -> None:
    """The daemon tries KVM with one; libvirtd destroys it with its connection, unless it is killed itself."""
    guest = "<name>virtfleet-probe-left</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>"
    rig.libvirt.createXML(f"<domain type='qemu'>{guest}</domain>")
    assert rig.qemu_pids()
    for pid in rig.node.pids("libvirtd"):
        os.kill(pid, signal.SIGKILL)
    await rig.reports.until(lambda: rig.qemu_pids() == (), 30, "the guest to go")
    rig.reconnect()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_running_guest_whose_domain_was_undefined_stays_ours(rig: Rig, *, restarted: bool) -> None:
    """A daemon that is killed within a start leaves libvirt to go on with it, and its successor may undefine it."""
    machine = new_machine(grace_period_seconds=3600)
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    qemu = rig.qemu_pids()
    rig.domain(machine).undefine()
    if restarted:
        await rig.restart_daemon()
    await rig.put(machine, generation=2)
    await rig.reports.until(rig.domain(machine).isPersistent, 30, "the definition to be there again")
    assert rig.qemu_pids() == qemu
    rig.domain(machine).undefine()
    await rig.put(machine, run=Run.ABSENT)  # nothing tells how long its guest has been asked
    await rig.until_phase(machine, Phase.ABSENT)
    assert rig.qemu_pids() == ()


async def test_what_is_left_of_an_unknown_machine_is_swept(rig: Rig) -> None:
    machine = with_disk()
    await rig.disks.prepare_disk(machine.uid, machine.hardware.disks[0], rig.images.files(DISK))
    report = await rig.daemon.put_machine(machine.model_copy(update={"run": Run.ABSENT}))
    assert report.phase is Phase.ABSENT
    assert rig.disks.read_disks(machine.uid) == ()


async def test_the_same_document_again_does_nothing(rig: Rig, crash: Crash) -> None:
    machine = with_disk()
    await rig.put(machine)
    await rig.until_phase(machine, Phase.RUNNING)
    crash.done.clear()
    reports = [await rig.daemon.put_machine(machine) for _ in range(3)]
    assert {report.phase for report in reports} == {Phase.RUNNING}
    assert crash.done == []
    await rig.remove(machine)


async def test_another_name_for_a_uid_is_refused(rig: Rig) -> None:
    machine = new_machine(run=Run.STOPPED)
    await rig.put(machine)
    with pytest.raises(ConflictError, match="belongs to default/guest"):
        await rig.put(machine, name="stranger")
    await rig.remove(machine)


async def test_a_machine_waits_for_its_image(rig: Rig) -> None:
    later = "eeeeeeee-0000-4000-8000-00000000000f"
    kernel = new_machine().hardware.kernel
    assert kernel is not None
    machine = new_machine(kernel=kernel.model_copy(update={"image_uid": later}), grace_period_seconds=0)
    await rig.put(machine)
    report = await rig.until_phase(machine, Phase.PROVISIONING)
    assert report.reason == "WaitingForImage"
    rig.images.become_ready(later, next(iter(rig.images.known.values())))
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.remove(machine)


async def test_a_start_that_fails_says_why_and_is_tried_again(rig: Rig) -> None:
    machine = new_machine(cpu_model="no-such-cpu", grace_period_seconds=0)
    await rig.put(machine)
    report = await rig.until_phase(machine, Phase.CRASH_LOOP)
    assert report.reason == "StartFailed"
    assert "no-such-cpu" in report.message
    assert report.next_start_at is not None
    better = machine.hardware.model_copy(update={"cpu_model": "host-model"})
    await rig.put(machine, hardware=better, start_token="again")
    await rig.until_phase(machine, Phase.RUNNING)
    await rig.remove(machine)


@pytest.mark.parametrize(
    "cmdline", ["</cmdline><script/>", "quote=\"' &amp; &lt;", "$(touch /tmp/x); `id` ../../etc/passwd", "]]> --"]
)
async def test_hostile_words_reach_the_guest_as_they_are(rig: Rig, cmdline: str) -> None:
    machine = new_machine(run=Run.STOPPED, grace_period_seconds=0)
    kernel = machine.hardware.kernel
    assert kernel is not None
    hardware = machine.hardware.model_copy(update={"kernel": kernel.model_copy(update={"cmdline": cmdline})})
    await rig.put(machine, hardware=hardware, run=Run.PAUSED)
    await rig.until_phase(machine, Phase.PAUSED)
    (pid,) = rig.qemu_pids()
    words = (rig.node.run("cat", f"/proc/{inner_pid(pid)}/cmdline")).split("\0")
    assert words[words.index("-append") + 1] == cmdline
    await rig.remove(machine)


def domains(rig: Rig) -> set[str]:
    return {domain.UUIDString() for domain in rig.libvirt.listAllDomains()}


def inner_pid(pid: int) -> int:
    """Return the pid of a process as the innermost of its pid namespaces knows it."""
    status = next(line for line in open(f"/proc/{pid}/status") if line.startswith("NSpid"))  # noqa: PTH123, SIM115 -- procfs
    return int(list(itertools.chain(status.split()))[-1])
