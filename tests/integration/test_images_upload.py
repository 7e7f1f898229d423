"""Uploads: pieces in order, breaks anywhere, and nothing that is not what was sent."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostile_images import header
from image_stores import UID, image, running_store, until
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.core.errors import ConflictError, InvalidError, NotFoundError
from virtfleet_node.storage.images import ImageStore

CONTENT = os.urandom(3 << 20)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
WANTED = image(None)


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def upload(images: ImageStore, data: bytes, digest: str | None = None) -> None:
    await images.receive(UID, 0, len(data), pieces(data))
    await images.finish_upload(UID, len(data), digest or hashlib.sha256(data).hexdigest())


def left_in(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "pool/images" / UID).iterdir())


async def test_a_file_in_pieces_becomes_an_image(tmp_path: Path) -> None:
    async with running_store(tmp_path) as (images, _):
        await images.put(WANTED)
        waiting = await until(images, lambda r: bool(r.message))
        assert (waiting.phase, "kubectl vm image upload base" in waiting.message) == (ImagePhase.PENDING, True)
        await images.receive(UID, 0, len(CONTENT), pieces(CONTENT[: 1 << 20]))
        assert (images.reports()[0].phase, images.reports()[0].progress_percent) == (ImagePhase.IMPORTING, 33)
        await images.receive(UID, 1 << 20, len(CONTENT), pieces(CONTENT[1 << 20 :]))
        await images.finish_upload(UID, len(CONTENT), DIGEST)
        report = await until(images, lambda r: r.phase is ImagePhase.READY)
        assert (report.sha256, report.file_size_bytes) == (DIGEST, len(CONTENT))
        with pytest.raises(ConflictError, match="has its content already"):
            await upload(images, CONTENT)
    assert left_in(tmp_path) == ["disk", "image.json", "ready.json"]
    assert (tmp_path / "pool/images" / UID / "disk").read_bytes() == CONTENT


async def test_it_goes_on_where_it_stopped_also_in_another_process(tmp_path: Path) -> None:
    async with running_store(tmp_path) as (images, _):
        await images.put(WANTED)
        await images.receive(UID, 0, None, pieces(CONTENT[:1000]))
    async with running_store(tmp_path) as (images, _):
        assert images.upload_state(UID).received_bytes == 1000
        waiting = await until(images, lambda r: r.phase is ImagePhase.PENDING and bool(r.message))
        assert waiting.file_size_bytes == 1000, "the operator sends what follows to this node"
        with pytest.raises(ConflictError, match="next piece begins with byte 1000"):
            await images.receive(UID, 500, None, pieces(CONTENT[500:]))
        with pytest.raises(ConflictError, match="1000 bytes are there"):
            await images.finish_upload(UID, len(CONTENT), DIGEST)
        await images.receive(UID, 1000, None, pieces(CONTENT[1000:]))
        await images.finish_upload(UID, len(CONTENT), DIGEST)
    async with running_store(tmp_path) as (images, _):  # killed before it was checked, or while
        await until(images, lambda r: r.phase is ImagePhase.READY)


async def test_an_upload_may_begin_anew(tmp_path: Path) -> None:
    async with running_store(tmp_path) as (images, _):
        await images.put(WANTED)
        await images.receive(UID, 0, None, pieces(b"x" * 1000))
        await upload(images, CONTENT)
        await until(images, lambda r: r.phase is ImagePhase.READY)


@pytest.mark.parametrize(
    ("data", "digest", "reason"),
    [
        (CONTENT, "0" * 64, "ChecksumMismatch"),
        (header(backing=b"/etc/shadow"), None, "UnsafeImage"),
        (b"<!DOCTYPE html>".ljust(1024), None, "UnsupportedFormat"),
    ],
    ids=["another file", "a qcow2 with a backing file", "a web page"],
)
async def test_a_bad_upload_leaves_nothing_and_another_may_follow(
    tmp_path: Path, data: bytes, digest: str | None, reason: str
) -> None:
    async with running_store(tmp_path) as (images, _):
        await images.put(WANTED)
        await upload(images, data, digest)
        failed = await until(images, lambda r: r.phase is ImagePhase.FAILED)
        assert (failed.reason, failed.message.endswith("Upload another file.")) == (reason, True)
        assert left_in(tmp_path) == ["image.json"]
        await upload(images, CONTENT)
        await until(images, lambda r: r.phase is ImagePhase.READY)


async def test_what_the_pool_cannot_take_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with running_store(tmp_path) as (images, _):
        await images.put(WANTED)
        with pytest.raises(InvalidError, match="that the pool can take"):
            await images.receive(UID, 0, 1 << 60, pieces(b"x"))
        assert left_in(tmp_path) == ["image.json"]


async def test_an_image_with_a_source_takes_no_upload(tmp_path: Path) -> None:
    async with running_store(tmp_path) as (images, _):
        with pytest.raises(NotFoundError):
            images.upload_state(UID)
        await images.put(image("http://127.0.0.1:1/disk.raw"))
        with pytest.raises(ConflictError, match="has a source of its own"):
            await upload(images, CONTENT)


async def test_a_pipe_or_a_link_in_the_way_is_replaced(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    async with running_store(tmp_path) as (images, _):
        await images.put(WANTED)
        partial = tmp_path / "pool/images" / UID / "disk.partial"
        for plant in (
            lambda: os.mkfifo(partial),
            lambda: partial.symlink_to(outside),
            lambda: partial.hardlink_to(outside),
        ):
            plant()
            await images.receive(UID, 0, None, pieces(b"x" * 512))
            partial.unlink()
    assert outside.read_bytes() == b"precious"
