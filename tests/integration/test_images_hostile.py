"""One daemon is offered every hostile file there is: each is refused by its reason, and nothing of the host is read."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hostile_images import CORPUS, HARMLESS, NO_ISO, canary, content, disc, sparse
from image_stores import RESTED, image, running_store, until
from virtfleet_api.image import ImageReport
from virtfleet_api.vm_image import ImagePhase, ImageType
from virtfleet_node.storage.failures import ImportFailedError
from virtfleet_node.storage.probe import probe_iso
from web import BadWeb, serve

AT_ONCE = 4

OFFERED: dict[str, tuple[ImageType, str | None, Any]] = {
    **{name: (ImageType.DISK, reason, make) for name, (reason, make) in CORPUS.items()},
    **{name: (ImageType.ISO, reason, make) for name, (reason, make) in NO_ISO.items()},
    **{name: (kind, None, make) for name, (kind, make) in HARMLESS.items()},
}
REFUSED = [name for name, (_, reason, _) in OFFERED.items() if reason]


class Offered(NamedTuple):
    """What became of all files."""

    root: Path
    secret: bytes
    reports: dict[str, ImageReport]


def uid(name: str) -> str:
    return f"{list(OFFERED).index(name):08x}-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offered:
    root = tmp_path_factory.mktemp("hostile")
    folder = root / "web"
    folder.mkdir()
    secret = secrets.token_hex(64).encode()
    canary(folder / "x").write_bytes(secret.ljust(4096))
    return Offered(root, secret, asyncio.run(offer(root, folder)))


async def offer(root: Path, folder: Path) -> dict[str, ImageReport]:
    """Import all of them in one process, a few at a time."""
    reports: dict[str, ImageReport] = {}
    async with serve(folder) as web, running_store(root) as (images, _):
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            kind, _, make = OFFERED[name]
            async with slots:
                await asyncio.to_thread(make, folder / uid(name))
                await images.put(image(f"{web.url}/files/{uid(name)}", uid=uid(name), type=kind))
                mine = await until(images, lambda r: r.uid == uid(name) and r.phase in RESTED, seconds=60)
                reports[name] = mine
                (folder / uid(name)).unlink()

        async with asyncio.TaskGroup() as group:
            for name in OFFERED:
                group.create_task(one(name))
    return reports


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_with_its_reason(offered: Offered, name: str) -> None:
    report = offered.reports[name]
    assert (report.phase, report.reason) == (ImagePhase.FAILED, OFFERED[name][1]), report
    assert len(report.message) > 20
    assert offered.secret.decode() not in report.message
    left = [path.name for path in (offered.root / "pool/images" / uid(name)).iterdir()]
    assert left == ["image.json"]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_file_that_only_looks_bad_is_kept_as_it_is(offered: Offered, name: str) -> None:
    report = offered.reports[name]
    assert report.phase is ImagePhase.READY, report
    assert sorted(path.name for path in (offered.root / "pool/images" / uid(name)).iterdir()) == [
        "disk",
        "image.json",
        "ready.json",
    ]


def test_nothing_of_the_host_is_in_the_pool(offered: Offered) -> None:
    files = [path for path in (offered.root / "pool").rglob("*") if path.is_file() and path.stat().st_size < 1 << 27]
    assert len(files) > len(OFFERED)
    assert [path for path in files if offered.secret[:64] in path.read_bytes()] == []


def test_a_file_larger_than_any_disc_is_no_cd(tmp_path: Path) -> None:
    sparse(disc(), 200 << 30)(tmp_path / "cd.iso")
    with pytest.raises(ImportFailedError) as caught:
        probe_iso(tmp_path / "cd.iso")
    assert caught.value.reason == "TooLarge"


@pytest.fixture
async def bad_web(tmp_path: Path) -> AsyncIterator[BadWeb]:
    folder = tmp_path / "web"
    folder.mkdir()
    content(os.urandom(4096))(folder / "disk.raw")
    async with serve(folder) as running:
        yield running


@pytest.mark.parametrize("name", ["disk.partial", "disk.partial.json", "ready.json.partial", "disk", "upload.json"])
@pytest.mark.parametrize("kind", ["a link", "a pipe", "another name of a file"])
async def test_what_is_planted_where_the_daemon_writes_is_replaced(
    tmp_path: Path, bad_web: BadWeb, name: str, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    async with running_store(tmp_path) as (images, _):
        wanted = image(f"{bad_web.url}/nothing")
        await images.put(wanted)
        await until(images, lambda r: r.phase is ImagePhase.FAILED)
    planted = tmp_path / "pool/images" / wanted.uid / name
    if kind == "a pipe":
        os.mkfifo(planted)
    elif kind == "a link":
        planted.symlink_to(outside)
    else:
        planted.hardlink_to(outside)
    async with running_store(tmp_path) as (images, _):
        await images.put(image(f"{bad_web.url}/files/disk.raw"))
        await until(images, lambda r: r.phase is ImagePhase.READY)
        assert images.files(wanted.uid).path.read_bytes() == (bad_web.folder / "disk.raw").read_bytes()
    assert outside.read_bytes() == b"precious"
