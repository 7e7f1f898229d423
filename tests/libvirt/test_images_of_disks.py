"""Images made from disks of machines that run or are off, and of snapshots, whatever is killed meanwhile."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from captures import capture
from guest_shell import run
from machine_rig import DISK, Rig, new_machine
from source_machines import (
    MIB,
    SLOW,
    blank,
    content,
    fill,
    holds,
    kill,
    leftovers,
    make_off,
    make_slow,
    stored,
    until_nothing_is_left,
)
from virtfleet_api.image import DiskOrigin, Image, ImageReport, SnapshotOrigin
from virtfleet_api.machine import ImageDiskSource, Machine, MachineDisk, Run
from virtfleet_api.report import Phase
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.qcow2 import HEADER_BYTES, check_standalone, parse_header


def image_of(source: Machine, disk: str) -> Image:
    origin = DiskOrigin(machine=source.name, name=disk, machine_uid=source.uid, pool="default")
    uid = str(uuid.uuid4())
    return Image(uid=uid, namespace="default", name=f"of-{source.name}", pool="default", disk=origin)


def report(rig: Rig, image: Image) -> ImageReport | None:
    return next((r for r in rig.images.reports() if r.uid == image.uid), None)


async def until(rig: Rig, image: Image, phase: ImagePhase, seconds: float = 120) -> ImageReport:
    await rig.reports.until(lambda: (r := report(rig, image)) and r.phase is phase, seconds, f"the image {phase}")
    found = report(rig, image)
    assert found is not None
    return found


def file_of(rig: Rig, image: Image) -> Path:
    return rig.pool / "images" / image.uid / "disk"


async def until_copying(rig: Rig, image: Image) -> None:
    partial = file_of(rig, image).with_name("disk.partial")
    await rig.reports.until(lambda: written_to(partial) > 20 * MIB, 60, "the copy is under way")


def written_to(path: Path) -> int:
    """Return how many bytes a file takes, 0 when there is none."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


async def remove_image(rig: Rig, image: Image) -> None:
    await rig.daemon.put_image(image.model_copy(update={"present": False}))
    assert not file_of(rig, image).parent.exists()


async def test_an_image_of_a_machine_that_is_off_stands_alone_and_starts_another(rig: Rig) -> None:
    root = MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=DISK))
    source = await make_off(rig, root)
    fill(stored(rig, source)["root"].path, 2, pattern=9, at=30)
    expected = content(stored(rig, source)["root"].path)
    image = image_of(source, "root")
    await rig.daemon.put_image(image)
    made = await until(rig, image, ImagePhase.READY)
    check_standalone(parse_header(file_of(rig, image).read_bytes()[:HEADER_BYTES]))
    assert (made.format, made.virtual_size_bytes) == ("qcow2", 40 * MIB)
    assert content(file_of(rig, image)) == expected
    digest = made.sha256

    fill(stored(rig, source)["root"].path, 4, pattern=1)
    await rig.remove(source)
    gone = DiskOrigin(machine=source.name, name="root")
    await rig.daemon.put_image(image.model_copy(update={"disk": gone}))
    await rig.restart_daemon()
    assert report(rig, image).sha256 == digest, "what becomes of the machine does not concern its image"
    with pytest.raises(ConflictError, match="imported already"):
        await rig.daemon.put_image(image.model_copy(update={"disk": DiskOrigin(machine="other", name="root")}))
    disk = MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=image.uid))
    machine = new_machine(disks=(disk,))
    await rig.put(machine)
    await rig.until_console(machine, "READY")
    await rig.remove(machine)
    await remove_image(rig, image)
    assert leftovers(rig) == []


async def test_an_image_of_a_running_guest_is_of_one_moment_and_does_not_stop_it(rig: Rig) -> None:
    source = new_machine(disks=(blank("data"),), grace_period_seconds=0)
    await rig.put(source)
    await rig.until_agent(source)
    loop = "i=0; while :; do printf %0512d $i | dd of=/dev/vda bs=512 seek=$i conv=notrunc,fsync 2>/dev/null"
    await rig.type(source, f"({loop}; i=$((i+1)); done) &")
    path = stored(rig, source)["data"].path
    await rig.reports.until(lambda: path.stat().st_blocks > 600, 60, "the guest writes")
    image = image_of(source, "data")
    await rig.daemon.put_image(image)
    await until(rig, image, ImagePhase.READY)
    disk = content(file_of(rig, image))
    numbers = [int(disk[at : at + 512]) for at in range(0, disk.index(bytes(512)), 512)]
    assert numbers, "the guest had written before"
    assert numbers == list(range(len(numbers)))
    assert not disk[len(numbers) * 512 :].strip(b"\0")
    assert rig.last(source).phase is Phase.RUNNING
    await until_nothing_is_left(rig, source)
    await rig.type(source, "kill %1; echo THA$((0))WED; sync", 1)
    await rig.until_console(source, "THA0WED")
    await rig.remove(source)
    await remove_image(rig, image)


async def outlives_every_kill(rig: Rig, source: Machine, build: Callable[[], Image]) -> None:
    """See that images are made although one after the other is killed meanwhile, and that nothing is left of it."""
    for victim in ("daemon", "libvirtd", "qemu"):
        image = build()
        await rig.daemon.put_image(image)
        await until_copying(rig, image)
        await kill(rig, victim)
        await until(rig, image, ImagePhase.READY)
        assert await asyncio.to_thread(holds, file_of(rig, image), SLOW)
        rig.reconnect()
        await rig.reports.until(lambda: rig.last(source).phase is Phase.RUNNING, 60, "the source runs")
        assert rig.domain(source).jobStats().get("type", 0) == 0
        await until_nothing_is_left(rig, source)
        await remove_image(rig, image)


async def test_an_image_is_made_anew_whatever_is_killed_and_its_source_waits_for_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await make_slow(rig)
    await outlives_every_kill(rig, source, lambda: image_of(source, "data"))
    await ends_when_its_pool_is_full(rig, source, monkeypatch)
    await stays_until_its_image_is_made_or_given_up(rig, source)


async def ends_when_its_pool_is_full(rig: Rig, source: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(source, "data")
    entry, free_bytes = rig.daemon._entries[source.uid], rig.pools.free_bytes
    # However fast the copy is and however slow this test: its room goes just after it was found large enough.
    monkeypatch.setattr(rig.pools, "free_bytes", lambda pool: 0 if entry.is_copied else free_bytes(pool))
    await rig.daemon.put_image(image)
    failed = await until(rig, image, ImagePhase.FAILED)
    monkeypatch.undo()
    assert (failed.reason, "has no room left for copies" in failed.message) == ("PoolFull", True)
    await until_nothing_is_left(rig, source)
    assert rig.domain(source).jobStats().get("type", 0) == 0
    assert rig.last(source).phase is Phase.RUNNING
    await remove_image(rig, image)


async def stays_until_its_image_is_made_or_given_up(rig: Rig, source: Machine) -> None:
    given_up, image = image_of(source, "data"), image_of(source, "data")
    await rig.daemon.put_image(given_up)
    await until_copying(rig, given_up)
    await rig.daemon.put_image(image)
    await rig.put(source, run=Run.ABSENT)
    await rig.reports.until(lambda: rig.last(source).reason == "WaitingForCopies", 60, "the wait to be told")
    assert f"the image default/{image.name}" in rig.last(source).message
    await remove_image(rig, given_up)
    await rig.until_phase(source, Phase.ABSENT)
    await until(rig, image, ImagePhase.READY)
    assert await asyncio.to_thread(holds, file_of(rig, image), SLOW)
    await remove_image(rig, image)
    assert leftovers(rig) == []


async def test_an_image_of_a_disk_that_is_not_here_says_so(rig: Rig) -> None:
    nowhere = image_of(new_machine(), "data")
    await rig.daemon.put_image(nowhere)
    failed = await until(rig, nowhere, ImagePhase.FAILED)
    assert failed.reason == "SourceNotReady"
    assert "is not on this node any more" in failed.message
    await remove_image(rig, nowhere)


def image_of_snapshot(snapshot: str, disk: str) -> Image:
    uid = str(uuid.uuid4())
    origin = SnapshotOrigin(snapshot="before", name=disk, snapshot_uid=snapshot)
    return Image(uid=uid, namespace="default", name=f"of-{uid[:8]}", pool="default", snapshot=origin)


async def test_an_image_of_a_snapshot_has_what_was_captured_while_the_guest_runs_on(rig: Rig) -> None:
    source = new_machine(disks=(blank("data"),), grace_period_seconds=0)
    await rig.put(source)
    await rig.until_agent(source)
    write = "printf {} | dd of=/dev/vda bs=512 conv=fsync,notrunc 2>/dev/null"
    await run(rig, source, write.format("one"))
    first = await capture(rig, source)
    await run(rig, source, write.format("two"))
    second = await capture(rig, source)
    await run(rig, source, write.format("now"))
    made = {}
    for snapshot, word in ((first, b"one"), (second, b"two")):
        image = image_of_snapshot(snapshot, "data")
        await rig.daemon.put_image(image)
        report = await until(rig, image, ImagePhase.READY)
        assert (report.format, report.virtual_size_bytes) == ("qcow2", 64 * MIB)
        check_standalone(parse_header(file_of(rig, image).read_bytes()[:HEADER_BYTES]))
        made[word] = image
    assert "now" in await run(rig, source, "dd if=/dev/vda bs=512 count=1 2>/dev/null"), "the guest is not touched"
    await rig.remove(source)
    for word, image in made.items():
        assert content(file_of(rig, image))[:512].rstrip(b"\0") == word
    late = image_of_snapshot(first, "data")
    await rig.daemon.put_image(late)
    await until(rig, late, ImagePhase.READY)  # the snapshot is still there, and its machine is gone
    assert content(file_of(rig, late)) == content(file_of(rig, made[b"one"]))
    for image in (late, *made.values()):
        await remove_image(rig, image)
    assert leftovers(rig) == []


async def test_an_image_of_a_snapshot_is_made_anew_whatever_is_killed(rig: Rig) -> None:
    source = await make_slow(rig)
    snapshot = await capture(rig, source)
    await outlives_every_kill(rig, source, lambda: image_of_snapshot(snapshot, "data"))
    assert leftovers(rig) == []


async def test_an_image_of_a_snapshot_that_is_not_here_says_so(rig: Rig) -> None:
    nowhere = image_of_snapshot(str(uuid.uuid4()), "data")
    await rig.daemon.put_image(nowhere)
    failed = await until(rig, nowhere, ImagePhase.FAILED)
    assert (failed.reason, "disk data of snapshot before is not on this node" in failed.message) == (
        "SourceNotReady",
        True,
    )
    await remove_image(rig, nowhere)
