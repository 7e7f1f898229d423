"""Machines made from snapshots: their own disks, names and cards, and the memory of another's guest."""

import asyncio
import gzip
import time
import uuid
from pathlib import Path

from lxml import etree

from captures import capture, restore
from guest_shell import run
from machine_rig import Rig, new_machine
from source_machines import MIB, blank, content, stored
from virtfleet_api.machine import Machine, MachineDisk, MachineInterface, Run, SnapshotDiskSource
from virtfleet_api.report import Phase, RestoreReport
from virtfleet_node.core.save_image import FIXED_BYTES, head_bytes

_COMPRESSED_AT = 16 + 3 * 4
_GZIP = 1


def card(number: int) -> MachineInterface:
    return MachineInterface(name="net0", mac=f"52:54:00:00:01:{number:02x}")


def made_from(snapshot: str, number: int, size: int | None = None, **more: object) -> Machine:
    """Return a machine like the source whose disk is made from the snapshot's."""
    source = SnapshotDiskSource(snapshot_uid=snapshot, name="data")
    disk = MachineDisk(name="data", pool="default", source=source, size_bytes=size)
    return new_machine(disks=(disk,), interfaces=(card(number),), grace_period_seconds=0, **more)


def compress(image: Path) -> None:
    """Compress QEMU's part of a memory image, as the daemon does afterwards."""
    whole = bytearray(image.read_bytes())
    whole[_COMPRESSED_AT : _COMPRESSED_AT + 4] = _GZIP.to_bytes(4, "little")
    head = head_bytes(bytes(whole[:FIXED_BYTES]))
    image.write_bytes(bytes(whole[:head]) + gzip.compress(bytes(whole[head:]), 1))


def cards(rig: Rig, machine: Machine) -> dict[str, str]:
    """Return the cards of a running guest: names by MAC address."""
    found = etree.fromstring(rig.domain(machine).XMLDesc()).findall("devices/interface")
    return {c.find("mac").get("address"): c.find("alias").get("name") for c in found}  # type: ignore[union-attr]


async def until_own_card(rig: Rig, machine: Machine) -> None:
    wanted = {machine.hardware.interfaces[0].mac}
    await rig.reports.until(
        lambda: (
            (r := rig.last(machine))
            and r.interfaces
            and r.interfaces[0].ip_addresses
            and cards(rig, machine).keys() == wanted
        ),
        60,
        "its own card, with an address",
    )


async def test_machines_go_on_from_the_memory_of_another_as_themselves(rig: Rig) -> None:
    source = new_machine(disks=(blank("data"),), interfaces=(card(0),), cloud_init=None, grace_period_seconds=0)
    await rig.put(source)
    await rig.until_agent(source)
    await run(rig, source, "echo early >/tmp/word; printf early | dd of=/dev/vda conv=fsync 2>/dev/null")
    snapshot = await capture(rig, source)
    compress(rig.disks.snapshots.memory_file(snapshot))
    await run(rig, source, "echo late >/tmp/word; printf later | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null")
    await asyncio.sleep(2)

    copies = [made_from(snapshot, number, 96 * MIB, restore=restore(snapshot)) for number in (1, 2, 3)]
    for copy in copies:
        await rig.put(copy)
    for copy in copies:
        report = await rig.until_phase(copy, Phase.RUNNING)
        assert report.restore is not None
        assert (report.restore.done, report.restore.warm, report.restore.message) == (True, True, "")
        assert rig.domain(copy).name() == f"vf-{copy.uid}"
        await until_own_card(rig, copy)
        await rig.type(copy, ": wake", 0)
        seen = await run(
            rig,
            copy,
            "cat /tmp/word; dd if=/dev/vda bs=5 count=1 2>/dev/null; cat /sys/class/net/eth*/address; date +%s",
        )
        word, disk, mac, seconds = seen.replace("early\nearly", "early\nearly\n").split()
        assert (word, disk, mac) == ("early", "early", copy.hardware.interfaces[0].mac)
        assert abs(int(seconds) - time.time()) < 2, "the guest's clock is behind"
        assert "READY" not in rig.console(copy), "it was booted"
        report = rig.last(copy)
        assert (report.restart_required, report.held_interfaces, report.disks[0].capacity_bytes) == ((), (), 96 * MIB)
        await run(
            rig,
            copy,
            f"printf copy{copy.hardware.interfaces[0].mac[-1]} | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null",
        )
    assert await run(rig, source, "cat /tmp/word; dd if=/dev/vda bs=5 count=1 2>/dev/null") == "late\nlater"
    assert list(rig.pool.rglob("*.partial")) == []

    await rig.remove(source)
    for copy in copies:
        await rig.put(copy, run=Run.STOPPED)
        await rig.until_phase(copy, Phase.STOPPED)
        assert content(stored(rig, copy)["data"].path)[:5] == f"copy{copy.hardware.interfaces[0].mac[-1]}".encode()
    copy = copies[0]
    await rig.put(copy)
    await rig.until_console(copy, "READY")
    assert cards(rig, copy) == {copy.hardware.interfaces[0].mac: "ua-card-net0"}
    for one in copies:
        await rig.remove(one)


async def until_done(rig: Rig, machine: Machine) -> RestoreReport:
    await rig.reports.until(
        lambda: (r := rig.last(machine)) and r.restore and r.restore.done, 90, "the restore", lambda: rig.last(machine)
    )
    done = rig.last(machine).restore
    assert done is not None
    return done


async def test_a_guest_is_given_a_machine_id_of_its_own_if_that_is_asked_for(rig: Rig) -> None:
    source = new_machine(disks=(blank("data"),), interfaces=(card(0),), cloud_init=None, grace_period_seconds=0)
    await rig.put(source)
    await rig.until_agent(source)
    shared = "0123456789abcdef0123456789abcdef"
    await run(rig, source, f"echo {shared} >/etc/machine-id")
    snapshot = await capture(rig, source)
    asked = restore(snapshot).model_copy(update={"machine_id": True})
    own, plain = made_from(snapshot, 1, restore=asked), made_from(snapshot, 2, restore=restore(snapshot))
    for machine, expected in ((own, uuid.UUID(own.uid).hex), (plain, shared)):
        await rig.put(machine)
        done = await until_done(rig, machine)
        assert (done.warm, done.message, done.note) == (True, "", "")
        await rig.type(machine, ": wake", 0)
        assert await run(rig, machine, "cat /etc/machine-id") == expected
    await run(rig, source, "rm /etc/machine-id; mkdir /etc/machine-id")
    snapshot = await capture(rig, source)
    asked = restore(snapshot).model_copy(update={"machine_id": True})
    refused = made_from(snapshot, 3, restore=asked)
    await rig.put(refused)
    done = await until_done(rig, refused)
    assert (done.warm, done.message) == (True, "")
    assert "Its machine-id is that of the snapshot: " in done.note
    assert "/etc/machine-id" in done.note
    for machine in (own, plain, refused, source):
        await rig.remove(machine)
