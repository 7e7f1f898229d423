"""Layers that no snapshot needs are merged, under a running guest by QEMU, and whoever is killed meanwhile."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from captures import capture as capture_as_daemon
from captures import restore
from layer_trees import MIB, capture, files, go_back, named, read, write
from machine_rig import Rig, new_machine
from source_machines import blank, kill, make_off
from virtfleet_api.machine import ExistingSource, Machine, Run
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine import Clone
from virtfleet_node.agent.surroundings import MERGE_BYTES_PER_SECOND

SIZE = 256


@pytest_asyncio.fixture(loop_scope="session")
async def slow(rig: Rig) -> AsyncIterator[None]:
    """Have merges take seconds."""
    await set_rate(rig, 12 * MIB)
    yield
    await set_rate(rig, MERGE_BYTES_PER_SECOND)


async def set_rate(rig: Rig, rate: int) -> None:
    rig.merge_bytes_per_second = rate
    await until_connected(rig)
    await rig.restart_daemon()


async def until_connected(rig: Rig) -> None:
    await rig.reports.until(lambda: rig.hypervisor.connected, 20, "libvirtd")
    rig.reconnect()


def tip(rig: Rig, machine: Machine) -> Path:
    (disk,) = rig.disks.read_disks(machine.uid)
    return disk.path


async def snap(rig: Rig, machine: Machine, pattern: int, at: int, mebibytes: int = 8) -> str:
    """Write something into the disk of a machine that is off, and keep a snapshot of it."""
    await asyncio.to_thread(write, tip(rig, machine), pattern, at, mebibytes)
    snapshot = str(uuid.uuid4())
    await capture(rig.disks, machine.uid, snapshot)
    return snapshot


async def forget(rig: Rig, machine: Machine, *snapshots: str) -> None:
    for snapshot in snapshots:
        rig.disks.snapshots.remove(snapshot)
    rig.daemon.machine_changed(machine.uid)


async def run(rig: Rig, machine: Machine) -> Machine:
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING)
    return machine


async def stop(rig: Rig, machine: Machine) -> Machine:
    machine = await rig.put(machine, run=Run.STOPPED, grace_period_seconds=0)
    await rig.until_phase(machine, Phase.STOPPED)
    return machine


async def until_layers(rig: Rig, machine: Machine, count: int) -> None:
    """Wait until so many files are left of the disk, and nothing else."""
    await rig.reports.until(
        lambda: len(files(rig.disks, machine.uid)) == count and not rig.last(machine).disks[0].message,
        60,
        f"{count} layers ({files(rig.disks, machine.uid)})",
    )


async def until_message(rig: Rig, machine: Machine) -> None:
    await rig.reports.until(lambda: "Merging layers" in rig.last(machine).disks[0].message, 20, "progress")


async def test_layers_of_a_running_guest_are_merged_in_a_tree(rig: Rig) -> None:
    machine = await make_off(rig, blank("data", SIZE))
    first = await snap(rig, machine, 1, 0, 16)
    second = await snap(rig, machine, 2, 8)
    await go_back(rig.disks, machine.uid, first)
    third = await snap(rig, machine, 3, 4)
    fourth = await snap(rig, machine, 4, 12)
    before = {uid: read(named(rig.disks, uid)) for uid in (first, second, fourth)}
    machine = await run(rig, machine)
    await until_layers(rig, machine, 5)
    qemu = rig.qemu_pids()

    await forget(rig, machine, third)
    await until_layers(rig, machine, 4)
    assert before == {uid: read(named(rig.disks, uid)) for uid in before}, "a snapshot names the merged file"

    await forget(rig, machine, second, first)
    await until_layers(rig, machine, 2)
    assert read(named(rig.disks, fourth)) == before[fourth]
    await forget(rig, machine, fourth)
    await check_chain(rig, machine)

    fill = "tr '\\0' '\\7' < /dev/zero | dd of=/dev/vda bs=1M count=70 seek=100 iflag=fullblock"
    await rig.type(machine, f"{fill} && sync && echo WRIT$((0))TEN")
    await rig.until_console(machine, "WRIT0TEN")
    active = tip(rig, machine)
    rig.daemon.machine_changed(machine.uid)
    await rig.reports.until(lambda: tip(rig, machine) != active, 20, "a layer above what was written")
    await until_layers(rig, machine, 2)
    await check_chain(rig, machine)
    assert rig.qemu_pids() == qemu

    machine = await stop(rig, machine)
    await until_layers(rig, machine, 1)
    found = read(tip(rig, machine))
    assert found[: 100 * MIB] == before[fourth][: 100 * MIB]
    assert found[100 * MIB : 170 * MIB] == b"\7" * (70 * MIB)
    assert found[170 * MIB :] == bytes((SIZE - 170) * MIB)
    await rig.remove(machine)


async def check_chain(rig: Rig, machine: Machine) -> None:
    """Check that libvirt's view of the guest's disk is that of the files."""
    (disk,) = rig.disks.read_disks(machine.uid)
    xml = rig.domain(machine).XMLDesc(0)
    assert [str(path) in xml for path in (disk.path, *disk.layers)] == [True] * (1 + len(disk.layers))
    folder = disk.path.parent
    gone = {f"root.{number}.qcow2" for number in range(9)} - {path.name for path in (disk.path, *disk.layers)}
    assert not any(str(folder / name) in xml for name in gone)


async def make_chain(rig: Rig, snapshots: int) -> tuple[Machine, list[str], bytes]:
    """Return a machine that is off, its snapshots, each with some seconds of merging in it, and what its disk holds."""
    machine = await make_off(rig, blank("data", SIZE))
    made = [await snap(rig, machine, number + 1, 8 * number, 24) for number in range(snapshots)]
    return machine, made, read(tip(rig, machine))


@pytest.mark.usefixtures("slow")
async def test_a_start_and_a_stop_do_not_wait_for_a_merge(rig: Rig) -> None:
    machine, snapshots, before = await make_chain(rig, 3)
    await forget(rig, machine, *snapshots)
    await until_message(rig, machine)
    machine = await rig.put(machine, run=Run.RUNNING)
    await rig.until_phase(machine, Phase.RUNNING, 6)
    await until_message(rig, machine)
    machine = await rig.put(machine, run=Run.STOPPED, grace_period_seconds=0)
    await rig.until_phase(machine, Phase.STOPPED, 6)
    assert read(tip(rig, machine)) == before
    await set_rate(rig, MERGE_BYTES_PER_SECOND)
    await until_layers(rig, machine, 1)
    assert read(tip(rig, machine)) == before
    await rig.remove(machine)
    assert files(rig.disks, machine.uid) == []


@pytest.mark.usefixtures("slow")
async def test_a_machine_above_another_ones_layers_starts_while_these_are_merged(rig: Rig) -> None:
    source, snapshots, before = await make_chain(rig, 2)
    other = await make_off(rig, blank("data", SIZE))
    await rig.disks.layers.make(
        rig.disks.layers.next_path(other.uid, "default", "data"), named(rig.disks, snapshots[1])
    )
    rig.disks.layers.remove_unneeded(other.uid)
    await forget(rig, source, snapshots[0])
    await until_message(rig, source)
    other = await rig.put(other, run=Run.RUNNING)
    await rig.until_phase(other, Phase.RUNNING, 6)
    assert rig.last(other).restarts == 0
    full = other.hardware.disks[0].model_copy(update={"source": ExistingSource(clone=Clone.FULL)})
    other = await rig.put(other, hardware=other.hardware.model_copy(update={"disks": (full,)}))
    await rig.reports.until(lambda: not rig.disks.read_disks(other.uid)[0].needs_others, 30, "independence")
    other = await rig.put(other, run=Run.STOPPED, grace_period_seconds=0)
    await rig.until_phase(other, Phase.STOPPED)
    await set_rate(rig, MERGE_BYTES_PER_SECOND)
    await until_layers(rig, source, 2)
    assert read(tip(rig, other)) == read(tip(rig, source)) == before
    await rig.remove(source)
    rig.disks.snapshots.remove(snapshots[1])
    rig.disks.layers.remove_unneeded(source.uid)
    assert files(rig.disks, source.uid) == []
    assert read(tip(rig, other)) == before
    await rig.remove(other)
    assert files(rig.disks, other.uid) == []


@pytest.mark.usefixtures("slow")
async def test_whoever_is_killed_while_layers_are_merged_keeps_all_content(rig: Rig) -> None:
    machine, snapshots, before = await make_chain(rig, 8)
    kept = {uid: read(named(rig.disks, uid)) for uid in snapshots}
    machine = await run(rig, machine)
    chance = random.Random()
    for victim in ("libvirtd", "daemon", "qemu", "libvirtd", "qemu", "daemon"):
        gone = chance.choice(list(kept)[:-1])
        del kept[gone]
        await forget(rig, machine, gone)
        await until_message(rig, machine)
        await asyncio.sleep(chance.uniform(0, 2.2))
        await kill(rig, victim)
        await asyncio.sleep(0.3)
        await until_connected(rig)
        await rig.until_phase(machine, Phase.RUNNING)
    await set_rate(rig, MERGE_BYTES_PER_SECOND)
    await until_layers(rig, machine, 3)
    machine = await stop(rig, machine)
    await until_layers(rig, machine, 3)
    assert {uid: read(named(rig.disks, uid)) for uid in kept} == kept
    await forget(rig, machine, *kept)
    await until_layers(rig, machine, 1)
    assert read(tip(rig, machine)) == before
    await rig.remove(machine)
    assert files(rig.disks, machine.uid) == []


async def test_a_guest_goes_on_from_memory_above_layers_that_were_merged(rig: Rig) -> None:
    machine = new_machine(disks=(blank("data", SIZE),), grace_period_seconds=0)
    await rig.put(machine)
    await rig.until_agent(machine)
    snapshots = []
    for number, word in enumerate(("one", "two", "three")):
        line = f"X={word}; echo $X | dd of=/dev/vda bs=512 seek={number} conv=sync,notrunc,fsync 2>/dev/null"
        await rig.type(machine, f"{line}; echo {word}$((0))", number + 1)
        await rig.until_console(machine, f"{word}0")
        snapshots.append(await capture_as_daemon(rig, machine))
    await forget(rig, machine, snapshots[0], snapshots[2])
    await until_layers(rig, machine, 3)
    assert named(rig.disks, snapshots[1]).name == "data.qcow2", "it was merged into the first one"
    asked = restore(snapshots[1])
    machine = await rig.put(machine, restore=asked)
    await rig.reports.until(
        lambda: (r := rig.last(machine).restore) and r.done and r.token == asked.token, 60, "restore"
    )
    report = rig.last(machine).restore
    assert (report.warm, report.message) == (True, "")
    await rig.type(machine, "echo IS-$X-$(dd if=/dev/vda bs=512 count=3 iflag=direct 2>/dev/null | tr -d '\\0\\n')-")
    await rig.until_console(machine, "IS-two-onetwo-", seconds=20)
    await until_layers(rig, machine, 2)
    await rig.remove(machine)
    rig.disks.snapshots.remove(snapshots[1])
    rig.disks.layers.remove_unneeded(machine.uid)
    assert files(rig.disks, machine.uid) == []
