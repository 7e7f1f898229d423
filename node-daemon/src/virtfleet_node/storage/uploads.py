"""Uploads: a file that arrives in pieces, each of which goes on where the last one ended, and is checked as a whole."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from virtfleet_api.base import Document
from virtfleet_api.image import ImageReport, UploadState
from virtfleet_api.machine import Sha256
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.core.errors import ConflictError, InvalidError
from virtfleet_node.storage.entry import UPLOAD, ImageEntry, build_report
from virtfleet_node.storage.files import (
    PARTIAL,
    make_folder,
    open_partial,
    partial_size,
    sync_file,
    write_sparse,
    write_whole,
)

_WRITE_BYTES: Final = 1 << 20
"""Gathered before a write, since a network gives smaller chunks."""


class UploadEnd(Document):
    """What a complete upload must be; kept beside the file until it is checked."""

    sha256: Sha256


def upload_state(entry: ImageEntry) -> UploadState:
    """Say how much of an upload is there."""
    report = entry.report
    received = report.file_size_bytes or 0 if report.phase is ImagePhase.READY else partial_size(_partial(entry))
    return UploadState(received_bytes=received, phase=report.phase, reason=report.reason, message=report.message)


def report_upload(entry: ImageEntry, total: int | None) -> ImageReport:
    """Return the report of an upload that is under way; `total` is the size of the whole file, if that is known."""
    received = partial_size(_partial(entry))
    if not received:
        return entry.report
    percent = min(99, 100 * received // total) if total else None
    changes = {"progress_percent": percent, "file_size_bytes": received}
    return build_report(entry.image, ImagePhase.IMPORTING).model_copy(update=changes)


def check_uploadable(entry: ImageEntry) -> None:
    """Refuse an upload of an image that has a source, or its content already: ConflictError."""
    named = f"Image {entry.image.namespace}/{entry.image.name}"
    if not entry.uploaded:
        raise ConflictError(f"{named} has a source of its own; only one with source.upload takes an upload.")
    if entry.files is not None:
        raise ConflictError(f"{named} has its content already; make another VMImage for another file.")
    if entry.writing.locked() or (entry.folder / UPLOAD).exists():
        raise ConflictError(f"{named} is being written or checked; look again in a moment.")


async def receive(
    entry: ImageEntry, offset: int, total: int | None, chunks: AsyncIterator[bytes], most_bytes: int
) -> None:
    """Append a piece of the file; whatever of it arrives is kept. At offset 0 the file begins anew.

    Raises:
        ConflictError: the piece does not go on where the last one ended.
        InvalidError: the file is larger than the pool can take.
    """
    partial = _partial(entry)
    async with entry.writing:
        make_folder(entry.folder)
        _check_size(total or 0, most_bytes)
        there = partial_size(partial)
        if offset not in {0, there}:
            raise ConflictError(f"{there} bytes are there, so the next piece begins with byte {there}, not {offset}.")
        with open_partial(partial, append=offset > 0) as file:
            async with aclosing(_gathered(chunks)) as pieces:
                async for piece in pieces:
                    offset += len(piece)
                    _check_size(offset, most_bytes)
                    await asyncio.to_thread(write_sparse, file, piece)


async def finish(entry: ImageEntry, size_bytes: int, sha256: str) -> None:
    """Note that the file is complete; whether it is the right one is found by the import.

    Raises:
        ConflictError: not all of it is there.
    """
    async with entry.writing:
        if (there := partial_size(_partial(entry))) != size_bytes or not there:
            raise ConflictError(f"{there} bytes are there, not {size_bytes}.")
        await asyncio.to_thread(sync_file, _partial(entry))
        await asyncio.to_thread(write_whole, entry.folder / UPLOAD, UploadEnd(sha256=sha256).model_dump_json().encode())
    entry.changed.set()


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise InvalidError(f"The file has more than the {most_bytes} bytes that the pool can take.")


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield larger pieces, and at the end whatever is left."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= _WRITE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _partial(entry: ImageEntry) -> Path:
    return entry.target.with_name(entry.target.name + PARTIAL)
