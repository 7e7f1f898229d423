"""Importing images from real web servers, good and bad, with a real qemu-img."""

import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostile_images import descriptors, disc
from image_stores import UID, image, imported, running_store, until
from virtfleet_api.image import Download
from virtfleet_api.machine import ImageDiskSource, MachineDisk
from virtfleet_api.vm_image import ImagePhase, ImageType
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.storage.failures import ImportFailedError
from virtfleet_node.storage.fetch import Fetch, Limits
from virtfleet_node.storage.origin import download_origin
from web import BadWeb, serve

MACHINE = "99999999-2222-3333-4444-555555555555"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(os.urandom(1 << 20) + bytes(3 << 20))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(folder / "disk.qcow2"), "64M"], check=True)
    return folder


@pytest.fixture
async def bad_web(files: Path) -> AsyncIterator[BadWeb]:
    async with serve(files) as running:
        yield running


def left_in(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "pool/images" / UID).iterdir())


@pytest.mark.parametrize(("name", "found", "size"), [("disk.raw", "raw", 4 << 20), ("disk.qcow2", "qcow2", 64 << 20)])
async def test_an_image_is_imported_with_its_checksum(
    tmp_path: Path, bad_web: BadWeb, name: str, found: str, size: int
) -> None:
    digest = hashlib.sha256((bad_web.folder / name).read_bytes()).hexdigest()
    report = await imported(tmp_path, image(f"{bad_web.url}/files/{name}", sha256=digest))
    assert (report.phase, report.format, report.virtual_size_bytes) == (ImagePhase.READY, found, size)
    assert report.progress_percent == 100
    assert left_in(tmp_path) == ["disk", "image.json", "ready.json"]


async def test_a_wrong_checksum_leaves_nothing(tmp_path: Path, bad_web: BadWeb) -> None:
    report = await imported(tmp_path, image(f"{bad_web.url}/files/disk.raw", sha256="0" * 64))
    assert (report.phase, report.reason) == (ImagePhase.FAILED, "ChecksumMismatch")
    assert "SHA-256" in report.message
    assert left_in(tmp_path) == ["image.json"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("redirect/0", "TooManyRedirects"),
        ("file_scheme", "HTTPError"),
        ("stall", "Stalled"),
        ("huge", "TooLarge"),
        ("failing", "HTTPError"),
        ("files/nothing", "HTTPError"),
    ],
)
async def test_a_bad_server_is_named(tmp_path: Path, bad_web: BadWeb, path: str, reason: str) -> None:
    report = await imported(tmp_path, image(f"{bad_web.url}/{path}"))
    assert (report.phase, report.reason) == (ImagePhase.FAILED, reason)
    assert "Trying again" in report.message
    assert "disk" not in left_in(tmp_path)


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    report = await imported(tmp_path, image("http://127.0.0.1:1/disk.raw"))
    assert (report.phase, report.reason) == (ImagePhase.FAILED, "Unreachable")


async def test_an_endless_file_is_cut_off(tmp_path: Path, bad_web: BadWeb) -> None:
    origin = download_origin(Download(url=f"{bad_web.url}/endless"))
    fetch = Fetch(origin, tmp_path / "disk", Limits(8 << 20), lambda *_: None)
    with pytest.raises(ImportFailedError) as caught:
        await fetch.run()
    assert caught.value.reason == "TooLarge"
    assert not list(tmp_path.glob("disk*"))


async def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path, bad_web: BadWeb) -> None:
    bad_web.interrupt_after = 1 << 20
    digest = hashlib.sha256((bad_web.folder / "disk.raw").read_bytes()).hexdigest()
    wanted = image(f"{bad_web.url}/files/disk.raw", sha256=digest)
    async with running_store(tmp_path) as (images, _):
        await images.put(wanted)
        failed = await until(images, lambda r: r.phase == ImagePhase.FAILED)
        assert failed.reason == "Truncated"
    async with running_store(tmp_path) as (images, _):  # another process of the daemon
        assert (await until(images, lambda r: r.phase == ImagePhase.READY)).progress_percent == 100
    first, second = bad_web.asked["/files/disk.raw"]
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 0


async def test_a_file_that_changed_is_fetched_anew(tmp_path: Path, bad_web: BadWeb) -> None:
    bad_web.interrupt_after = 1 << 20
    async with running_store(tmp_path) as (images, _):
        await images.put(image(f"{bad_web.url}/files/disk.raw"))
        await until(images, lambda r: r.phase == ImagePhase.FAILED)
    content = os.urandom(2 << 20)
    (bad_web.folder / "disk.raw").write_bytes(content)
    async with running_store(tmp_path) as (images, _):
        await until(images, lambda r: r.phase == ImagePhase.READY)
        assert images.files(UID).path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        disc(),
        disc(udf=True),
        disc(boot=b"\x33\xed\x90" + bytes(507) + b"\x55\xaa"),
        descriptors(b"BEA01", b"NSR03", b"TEA01"),
        disc() + b"signature",
    ],
    ids=["ISO 9660", "with UDF", "with a boot sector", "UDF alone", "not whole blocks"],
)
async def test_a_cd_is_kept_as_it_is(tmp_path: Path, bad_web: BadWeb, content: bytes) -> None:
    (bad_web.folder / "cd.iso").write_bytes(content)
    report = await imported(tmp_path, image(f"{bad_web.url}/files/cd.iso", type=ImageType.ISO))
    assert (report.phase, report.format, report.virtual_size_bytes) == (ImagePhase.READY, "raw", len(content))
    assert (tmp_path / "pool/images" / UID / "disk").read_bytes() == content


async def test_a_base_with_clones_stays(tmp_path: Path, bad_web: BadWeb) -> None:
    wanted = image(f"{bad_web.url}/files/disk.qcow2")
    disk = MachineDisk(name="root", pool="default", source=ImageDiskSource(image_uid=UID))
    async with running_store(tmp_path) as (images, disks):
        await images.put(wanted)
        await until(images, lambda r: r.phase == ImagePhase.READY)
        await disks.prepare_disk(MACHINE, disk, images.files(UID))
        with pytest.raises(ConflictError, match=MACHINE):
            await images.put(wanted.model_copy(update={"present": False}))
        assert images.files(UID) is not None
        disks.remove_disk(MACHINE, "default", "root")
        gone: list[str] = []
        images.subscribe(gone.append)
        await images.put(wanted.model_copy(update={"present": False}))
        assert gone == [UID]
        assert images.reports() == ()
    assert not (tmp_path / "pool/images" / UID).exists()


async def test_a_kernel_must_be_one(tmp_path: Path, bad_web: BadWeb) -> None:
    report = await imported(tmp_path, image(f"{bad_web.url}/files/disk.raw", type=ImageType.KERNEL))
    assert (report.phase, report.reason) == (ImagePhase.FAILED, "UnsupportedFormat")
    assert "kernel" in report.message


async def test_links_in_a_pool_are_not_followed(tmp_path: Path, bad_web: BadWeb) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with running_store(tmp_path) as (images, _):
        (tmp_path / "pool/images" / UID).symlink_to(outside)
        with pytest.raises(Exception, match="administrator"):
            await images.put(image(f"{bad_web.url}/files/disk.raw"))
    assert list(outside.iterdir()) == []
