"""Getting an image: from a node that has it, from its source, or from an upload; then probed, and published whole.

An import is a task that may be killed at any moment; the next one takes up what it finds.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from virtfleet_api.image import ImageFormat, ImageReport
from virtfleet_api.vm_image import ImagePhase, ImageType
from virtfleet_node.core.errors import InvalidError, PoolFullError, UnavailableError
from virtfleet_node.core.ports import ExportDisk
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage.claims import claimed
from virtfleet_node.storage.disk_copy import copy_disk
from virtfleet_node.storage.entry import INITRD, READY, UPLOAD, ImageEntry, build_report, read_report
from virtfleet_node.storage.failures import ImportFailedError, retry_seconds
from virtfleet_node.storage.fetch import Fetch, Fetched, Limits, Progress, sha256_of
from virtfleet_node.storage.files import PARTIAL, make_folder, partial_size, publish, read_small, write_whole
from virtfleet_node.storage.origin import Origin, Tls, download_origin, peer_origins
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.probe import probe_disk, probe_iso, probe_kernel
from virtfleet_node.storage.uploads import UploadEnd

_LOG = logging.getLogger(__name__)

_RESERVE: Final = 0.02
"""Share of a pool that imports leave free, so that running guests can still write."""

_PROGRESS_STEP: Final = 2
"""Percent between two reports of progress: fifty reports an import, whatever its size."""


class _NotYetError(Exception):
    """There is nothing to import from before somebody acts; the text says who."""


class Importer:
    """Imports images into pools."""

    def __init__(
        self, pools: Pools, peer_tls: Callable[[], Tls], stall_seconds: float, tell: Callable[[str], None]
    ) -> None:
        self._pools = pools
        self._peer_tls = peer_tls
        self._stall_seconds = stall_seconds
        self._tell = tell
        self.export: ExportDisk | None = None
        """Copies disks of machines and snapshots, once there is who can."""

    async def run(self, entry: ImageEntry) -> None:
        """Try until the image is Ready."""
        attempt = 0
        while entry.files is None:
            entry.changed.clear()
            attempt += 1
            try:
                async with entry.writing:
                    await self._attempt(entry)
            except _NotYetError as wait:
                if entry.report.phase is not ImagePhase.FAILED:
                    there = partial_size(entry.target.with_name(entry.target.name + PARTIAL))
                    self._change(entry, phase=ImagePhase.PENDING, message=str(wait), file_size_bytes=there)
                await entry.changed.wait()
                attempt = 0
            except ImportFailedError as failure:
                await self._pause(entry, failure, attempt)

    async def _pause(self, entry: ImageEntry, failure: ImportFailedError, attempt: int) -> None:
        """Tell of a failure, and wait as long as it is worth, or until something has changed."""
        _LOG.warning("Importing failed", extra={"image": entry.image.uid, "reason": failure.reason})
        wait = None if entry.uploaded and failure.final else retry_seconds(failure, attempt)
        then = "Upload another file." if wait is None else f"Trying again in {wait:.0f} s."
        self._change(entry, phase=ImagePhase.FAILED, reason=failure.reason, message=f"{failure.message} {then}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await entry.changed.wait()

    async def _attempt(self, entry: ImageEntry) -> None:
        try:
            async with claimed(entry.folder, lambda: self._wait_for_another(entry)):
                report = read_report(entry.folder) or await self._fill(entry)
        except OSError as error:
            raise ImportFailedError("StorageError", f"The pool {entry.image.pool} failed: {error.strerror}.") from None
        except InvalidError as error:
            raise ImportFailedError("NoSuchPool", str(error)) from None
        except PoolFullError as error:
            raise ImportFailedError("PoolFull", str(error)) from None
        except UnavailableError as error:
            raise ImportFailedError("StorageError", str(error)) from None
        entry.report, entry.files = report, find_files(entry, report)
        self._tell(entry.image.uid)

    def _wait_for_another(self, entry: ImageEntry) -> None:
        message = f"Another node imports the image into the shared pool {entry.image.pool}."
        self._change(entry, phase=ImagePhase.IMPORTING, reason="ImportedByAnother", message=message)

    async def _fill(self, entry: ImageEntry) -> ImageReport:
        """Bring the files of an image into its folder; the mark of completeness comes last."""
        self._pools.check_open(entry.image.pool)
        make_folder(entry.folder)
        main = await self._main(entry)
        report = await self._inspect(entry, main)
        if entry.image.initrd is not None:
            initrd = await self._fetch_any(entry, entry.folder / INITRD, _silent, initrd=True)
            await asyncio.to_thread(publish, initrd.path, entry.folder / INITRD)
            report = report.model_copy(update={"initrd_sha256": initrd.sha256})
        await asyncio.to_thread(publish, main.path, entry.target)
        await asyncio.to_thread(write_whole, entry.folder / READY, report.model_dump_json().encode())
        sweep(entry.folder)
        return report

    async def _main(self, entry: ImageEntry) -> Fetched:
        if entry.uploaded and (end := read_upload_end(entry.folder)):
            self._change(entry, phase=ImagePhase.IMPORTING, progress_percent=99)
            return await _check_upload(entry, end)

        def progress(size: int, expected: int | None) -> None:
            self._percent(entry, 100 * size / expected if expected else 0)

        return await self._fetch_any(entry, entry.target, progress)

    async def _fetch_any(self, entry: ImageEntry, target: Path, progress: Progress, *, initrd: bool = False) -> Fetched:
        """Fetch a file from the first origin that gives it: nodes before the source."""
        image, failure = entry.image, None
        named, copied = image.initrd if initrd else image.main, image.copy_origin
        origins = list(peer_origins(image, self._peer_tls, initrd=initrd))
        if named and (named.authorization or not named.authenticated):
            origins.append(download_origin(named, None if initrd else image.sha256))
        for origin in origins:
            if not initrd:
                self._change(entry, phase=ImagePhase.IMPORTING, progress_percent=0)
            try:
                return await Fetch(origin, target, self._limits(entry, origin), progress).run()
            except ImportFailedError as error:
                failure = _of_peer(origin, error)
                _LOG.warning("An origin fails", extra={"image": image.uid, "reason": failure.reason, "why": str(error)})
        if copied and image.sha256 is None and copied.is_here and self.export:
            return await copy_disk(entry, copied, self.export, partial(self._percent, entry))
        if copied:
            raise failure or _NotYetError("The node waits for another to copy the disk.")
        if named and named.authenticated and not named.authorization:
            raise _NotYetError("The node waits for the credentials of the source, which the operator sends.")
        raise failure or _NotYetError(
            f"The image waits for its content: kubectl vm image upload {image.name} -n {image.namespace} --file FILE"
        )

    def _percent(self, entry: ImageEntry, percent: float) -> None:
        shown, told = min(99, int(percent)), entry.report.progress_percent
        if told is None or shown >= told + _PROGRESS_STEP:
            self._change(entry, phase=ImagePhase.IMPORTING, progress_percent=shown)

    async def _inspect(self, entry: ImageEntry, fetched: Fetched) -> ImageReport:
        """Return the report of a complete file; a file that may not be used is removed."""
        try:
            found, virtual = await _probe(entry.image.type, fetched.path)
        except ImportFailedError:
            discard(entry)
            raise
        size = fetched.path.stat()
        return build_report(entry.image, ImagePhase.READY).model_copy(
            update={
                "format": found,
                "virtual_size_bytes": virtual,
                "actual_size_bytes": size.st_blocks * 512,
                "progress_percent": 100,
                "sha256": fetched.sha256,
                "file_size_bytes": size.st_size,
            }
        )

    def _limits(self, entry: ImageEntry, origin: Origin) -> Limits:
        room = room_for(self._pools, entry)
        return Limits(room if origin.max_bytes is None else min(room, origin.max_bytes), self._stall_seconds)

    def _change(self, entry: ImageEntry, **changes: object) -> None:
        entry.report = build_report(entry.image, ImagePhase.PENDING).model_copy(update=changes)
        self._tell(entry.image.uid)


def room_for(pools: Pools, entry: ImageEntry) -> int:
    """Return how large an image's file may become, in bytes, with what of it is there already."""
    pool = entry.image.pool
    reserve = next(r.capacity_bytes for r in pools.reports() if r.name == pool) * _RESERVE
    there = sum(path.lstat().st_size for path in entry.folder.glob(f"*{PARTIAL}"))
    return max(0, int(pools.free_bytes(pool) - reserve)) + there


def find_files(entry: ImageEntry, report: ImageReport) -> ImageFiles:
    """Return the files of an image that is Ready."""
    return ImageFiles(
        path=entry.target,
        format=report.format or ImageFormat.RAW,
        virtual_size_bytes=report.virtual_size_bytes or 0,
        initrd=entry.folder / INITRD if entry.image.initrd else None,
    )


def read_upload_end(folder: Path) -> UploadEnd | None:
    """Return what an upload that is complete must be."""
    try:
        return UploadEnd.model_validate_json(read_small(folder / UPLOAD) or b"")
    except ValidationError:
        return None


def discard(entry: ImageEntry) -> None:
    """Remove all that was written of an image's file."""
    # The mark of completeness first: without the file it would promise what is not there.
    for leftover in (entry.folder / UPLOAD, *entry.folder.glob(f"{entry.target.name}{PARTIAL}*"), entry.target):
        leftover.unlink(missing_ok=True)


async def _check_upload(entry: ImageEntry, end: UploadEnd) -> Fetched:
    """Return the uploaded file, which a daemon that was killed may have published already."""
    partial = entry.target.with_name(entry.target.name + PARTIAL)
    path = partial if partial.exists() else entry.target
    found = await asyncio.to_thread(sha256_of, path)
    if found != end.sha256:
        discard(entry)
        raise ImportFailedError(
            "ChecksumMismatch", f"What arrived has the SHA-256 {found}, what was sent {end.sha256}."
        )
    return Fetched(path, found)


async def _probe(kind: ImageType, path: Path) -> tuple[ImageFormat, int]:
    """Return format and virtual size in bytes of a file that shall be an image of this type; ImportFailedError."""
    match kind:
        case ImageType.KERNEL:
            return ImageFormat.KERNEL, probe_kernel(path)
        case ImageType.ISO:
            return ImageFormat.RAW, probe_iso(path)
        case ImageType.DISK:
            return await probe_disk(path)


def _of_peer(origin: Origin, failure: ImportFailedError) -> ImportFailedError:
    """Name the node that failed; what it gave is of no use, but the next one may give the right file at once."""
    if origin.peer is None:
        return failure
    return ImportFailedError("CopyFailed", f"Copying from node {origin.peer.node} failed: {failure.message}")


def sweep(folder: Path) -> None:
    """Remove what is of no use once the files are published."""
    for leftover in (*folder.glob(f"*{PARTIAL}*"), folder / UPLOAD):
        leftover.unlink(missing_ok=True)


def _silent(_: int, __: int | None) -> None:
    """Report no progress: an initial RAM disk is small beside its kernel's image."""
