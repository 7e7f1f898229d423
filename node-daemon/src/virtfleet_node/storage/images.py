"""The images that this node holds: <pool>/images/<image uid>/ with the files and `image.json`, the Image document.

An image is Ready when `ready.json` (its report) lies beside its files; it is written last. Every import is a task that
can be killed at any moment and is taken up by the next `start`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from virtfleet_api.image import Image, ImageFormat, ImageReport
from virtfleet_api.vm_image import ImagePhase, ImageType
from virtfleet_node.core.errors import ConflictError, InvalidError, PoolFullError, UnavailableError
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage.claims import PATIENCE_SECONDS, claimed, remove_claimed, sweep
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.failures import ImportFailedError, retry_seconds
from virtfleet_node.storage.fetch import STALL_SECONDS, Fetch, Limits
from virtfleet_node.storage.files import make_folder, publish, subfolders, write_whole
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.probe import probe_disk, probe_kernel

_LOG = logging.getLogger(__name__)

_DOCUMENT, _READY = "image.json", "ready.json"
_INITRD: Final = "initrd"
_RESERVE: Final = 0.02
"""Share of a pool that imports leave free, so that running guests can still write."""

_PROGRESS_STEP: Final = 2
"""Percent between two reports of progress: fifty reports an import, whatever its size."""


@dataclass
class _Entry:
    """An image, what is known of it, and the task that works on it."""

    image: Image
    report: ImageReport
    files: ImageFiles | None = None
    task: "asyncio.Task[None] | None" = None


class ImageStore:
    """The images in all pools."""

    def __init__(self, pools: Pools, disks: DiskStore, stall_seconds: float = STALL_SECONDS) -> None:
        self._pools = pools
        self._disks = disks
        self._stall_seconds = stall_seconds
        self._entries: dict[str, _Entry] = {}
        self._callbacks: list[Callable[[str], None]] = []

    def subscribe(self, callback: Callable[[str], None]) -> None:
        """Call back with the UID of each image whose report changed or that is gone."""
        self._callbacks.append(callback)

    def reports(self) -> tuple[ImageReport, ...]:
        """Return a report of each image."""
        return tuple(entry.report for entry in self._entries.values())

    def files(self, image_uid: str) -> ImageFiles | None:
        """Return the files of an image that is Ready."""
        entry = self._entries.get(image_uid)
        return entry.files if entry else None

    async def start(self) -> None:
        """Take up what an earlier process left: complete images, imports and removals."""
        await self.take_up()

    async def take_up(self) -> None:
        """Take up the images of all pools that are not known yet; a pool that cannot be read has none."""
        for pool in self._pools.names():
            images = self._pools.folder(pool, "images")
            with contextlib.suppress(OSError):
                # A folder without a document is left by a crash: nothing can be backed by it.
                sweep(images, lambda folder: folder.name in self._entries or _read_document(folder) is not None)
                for folder in subfolders(images):
                    image = None if folder.name in self._entries else _read_document(folder)
                    if image is not None and image.uid == folder.name:
                        self._take_up(image.model_copy(update={"pool": pool}))

    async def stop(self) -> None:
        """End all work; what is partial is taken up at the next start."""
        tasks = [entry.task for entry in self._entries.values() if entry.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def put(self, image: Image) -> ImageReport:
        """Take over what the operator wants of an image; the work goes on after the answer.

        Raises:
            InvalidError: the node has no such pool.
            ConflictError: another image has this UID, or machines need the image that shall go.
        """
        entry = self._entries.get(image.uid)
        if not image.present:
            return await self._remove(image, entry)
        if entry is not None and entry.image == image:
            return entry.report
        if entry is not None and entry.files is not None and _differs(entry.image, image):
            raise ConflictError(f"Image {image.namespace}/{image.name} is imported already; its source cannot change.")
        if entry is not None and entry.files is None:
            await _end(entry.task)
            await self._drop(entry)
        folder = self._folder(image)
        if _read_document(folder) != image:
            async with claimed(folder, _idle, PATIENCE_SECONDS):
                write_whole(make_folder(folder) / _DOCUMENT, image.model_dump_json().encode())
        found = self._entries.get(image.uid)  # it may have been found in the pool meanwhile
        return found.report if found is not None and found.image == image else self._take_up(image).report

    def _take_up(self, image: Image) -> _Entry:
        done = _read_report(self._folder(image) / _READY)
        entry = _Entry(image, done or _report(image, ImagePhase.PENDING))
        self._entries[image.uid] = entry
        if done is not None:
            entry.files = self._files(image, done)
        else:
            entry.task = asyncio.create_task(self._import(entry))
        self._tell(image.uid)
        return entry

    async def _remove(self, image: Image, entry: _Entry | None) -> ImageReport:
        if users := self._disks.users(image.uid):
            raise ConflictError(f"Disks of these machines are backed by the image: {', '.join(users)}.")
        if entry is not None:
            await _end(entry.task)
            await self._drop(entry)
            del self._entries[image.uid]
            self._tell(image.uid)
        return _report(image, ImagePhase.PENDING)

    async def _drop(self, entry: _Entry) -> None:
        """Remove the files of an image; of a shared pool, when no other node works on them."""
        folder = self._folder(entry.image)
        async with claimed(folder, _idle, PATIENCE_SECONDS):
            # The mark of completeness goes first: a crash from here on leaves what is imported again or removed.
            (folder / _READY).unlink(missing_ok=True)
            await asyncio.to_thread(remove_claimed, folder)

    async def _import(self, entry: _Entry) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._attempt(entry)
            except ImportFailedError as failure:
                wait = retry_seconds(failure, attempt)
                _LOG.warning("Importing failed", extra={"image": entry.image.uid, "reason": failure.reason})
                message = f"{failure.message} Trying again in {wait:.0f} s."
                self._change(entry, phase=ImagePhase.FAILED, reason=failure.reason, message=message)
                await asyncio.sleep(wait)
            else:
                return

    async def _attempt(self, entry: _Entry) -> None:
        image, folder = entry.image, self._folder(entry.image)
        try:
            async with claimed(folder, lambda: self._wait_for_another(entry)):
                report = _read_report(folder / _READY) or await self._fill(entry, make_folder(folder))
        except OSError as error:
            raise ImportFailedError("StorageError", f"The pool {image.pool} failed: {error.strerror}.") from None
        except InvalidError as error:
            raise ImportFailedError("NoSuchPool", str(error)) from None
        except PoolFullError as error:
            raise ImportFailedError("PoolFull", str(error)) from None
        except UnavailableError as error:
            raise ImportFailedError("StorageError", str(error)) from None
        for sidecar in folder.glob("*.partial.json"):
            sidecar.unlink()
        entry.report, entry.files = report, self._files(image, report)
        self._tell(image.uid)

    def _wait_for_another(self, entry: _Entry) -> None:
        message = f"Another node imports the image into the shared pool {entry.image.pool}."
        self._change(entry, phase=ImagePhase.IMPORTING, reason="ImportedByAnother", message=message)

    async def _fill(self, entry: _Entry, folder: Path) -> ImageReport:
        """Bring the files of an image into its folder; the mark of completeness comes last."""
        image = entry.image
        self._pools.check_open(image.pool)
        main = await self._fetch(entry, folder / _file_name(image))
        report = await self._inspect(entry, main)
        if image.initrd is not None:
            initrd = Fetch(image.initrd, folder / _INITRD, self._limits(image), _silent)
            await asyncio.to_thread(publish, await initrd.run(), folder / _INITRD)
        await asyncio.to_thread(publish, main, folder / _file_name(image))
        await asyncio.to_thread(write_whole, folder / _READY, report.model_dump_json().encode())
        return report

    async def _fetch(self, entry: _Entry, target: Path) -> Path:
        self._change(entry, phase=ImagePhase.IMPORTING, progress_percent=0)

        def progress(size: int, expected: int | None) -> None:
            percent = min(99, 100 * size // expected) if expected else 0
            if percent >= (entry.report.progress_percent or 0) + _PROGRESS_STEP:
                self._change(entry, phase=ImagePhase.IMPORTING, progress_percent=percent)

        return await Fetch(entry.image.main, target, self._limits(entry.image), progress).run()

    async def _inspect(self, entry: _Entry, partial: Path) -> ImageReport:
        """Return the report of a complete file; a file that may not be used is removed."""
        try:
            if entry.image.type == ImageType.KERNEL:
                probe_kernel(partial)
                found, virtual = ImageFormat.KERNEL, partial.stat().st_size
            else:
                found, virtual = await probe_disk(partial)
        except ImportFailedError:
            for leftover in partial.parent.glob(f"{partial.name}*"):
                leftover.unlink()
            raise
        return _report(entry.image, ImagePhase.READY).model_copy(
            update={
                "format": found,
                "virtual_size_bytes": virtual,
                "actual_size_bytes": partial.stat().st_blocks * 512,
                "progress_percent": 100,
            }
        )

    def _limits(self, image: Image) -> Limits:
        folder = self._pools.folder(image.pool, "images")
        free = self._pools.free_bytes(image.pool)
        reserve = next(r.capacity_bytes for r in self._pools.reports() if r.name == image.pool) * _RESERVE
        there = sum(p.stat().st_size for p in (folder / image.uid).glob("*.partial"))
        return Limits(max(0, int(free - reserve) + there), self._stall_seconds)

    def _change(self, entry: _Entry, **changes: object) -> None:
        entry.report = _report(entry.image, ImagePhase.PENDING).model_copy(update=changes)
        self._tell(entry.image.uid)

    def _tell(self, uid: str) -> None:
        for callback in self._callbacks:
            callback(uid)

    def _folder(self, image: Image) -> Path:
        return self._pools.folder(image.pool, "images") / image.uid

    def _files(self, image: Image, report: ImageReport) -> ImageFiles:
        folder = self._folder(image)
        return ImageFiles(
            path=folder / _file_name(image),
            format=report.format or ImageFormat.RAW,
            virtual_size_bytes=report.virtual_size_bytes or 0,
            initrd=folder / _INITRD if image.initrd else None,
        )


def _file_name(image: Image) -> str:
    return "kernel" if image.type == ImageType.KERNEL else "disk"


def _report(image: Image, phase: ImagePhase) -> ImageReport:
    return ImageReport(uid=image.uid, namespace=image.namespace, name=image.name, phase=phase)


def _differs(old: Image, new: Image) -> bool:
    """Tell whether two documents name different content."""
    return (old.type, old.pool, old.main, old.initrd) != (new.type, new.pool, new.main, new.initrd)


def _read_document(folder: Path) -> Image | None:
    try:
        return Image.model_validate_json((folder / _DOCUMENT).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _read_report(path: Path) -> ImageReport | None:
    try:
        return ImageReport.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _idle() -> None:
    """Wait for another node without a word: the sender of an instruction is told when it takes too long."""


def _silent(_: int, __: int | None) -> None:
    """Report no progress: an initial RAM disk is small beside its kernel's image."""


async def _end(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
