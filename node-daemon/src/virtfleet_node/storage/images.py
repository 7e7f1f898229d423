"""The images that this node holds: <pool>/images/<image uid>/ with the files and `image.json`, the Image document.

An image is Ready when `ready.json` (its report) lies beside its files; it is written last. Every import is a task that
can be killed at any moment and is taken up by the next `start`.
"""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from pydantic import ValidationError

from virtfleet_api.image import Image, ImageReport, UploadState
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.core.errors import ConflictError, NotFoundError
from virtfleet_node.core.ports import ExportDisk
from virtfleet_node.core.stored import ImageCopy, ImageFiles
from virtfleet_node.storage import claims
from virtfleet_node.storage.claims import PATIENCE_SECONDS, claimed
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.entry import DOCUMENT, READY, ImageEntry, build_report, read_report
from virtfleet_node.storage.fetch import STALL_SECONDS
from virtfleet_node.storage.files import make_folder, read_small, subfolders, write_whole
from virtfleet_node.storage.importing import Importer, find_files, room_for, sweep
from virtfleet_node.storage.origin import Tls
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.uploads import check_uploadable, finish, receive, report_upload, upload_state


class ImageStore:
    """The images in all pools."""

    def __init__(
        self,
        pools: Pools,
        disks: DiskStore,
        stall_seconds: float = STALL_SECONDS,
        peer_tls: Callable[[], Tls] = lambda: True,
    ) -> None:
        """Take the pools, and how other nodes of the fleet are known by their certificates."""
        self._pools = pools
        self._disks = disks
        self._importer = Importer(pools, peer_tls, stall_seconds, self._tell)
        self._entries: dict[str, ImageEntry] = {}
        self._callbacks: list[Callable[[str], None]] = []

    def subscribe(self, callback: Callable[[str], None]) -> None:
        """Call back with the UID of each image whose report changed or that is gone."""
        self._callbacks.append(callback)

    def copy_disks_with(self, export: ExportDisk) -> None:
        """Take what makes images from disks of machines and snapshots."""
        self._importer.export = export

    def copied_from(self, machine_uid: str) -> tuple[str, ...]:
        """Return namespace/name of the images that are still to be made from a machine's disks."""
        waiting = (entry.image for entry in self._entries.values() if entry.files is None and entry.image.disk)
        found = (image for image in waiting if image.disk and image.disk.machine_uid == machine_uid)
        return tuple(sorted(f"{image.namespace}/{image.name}" for image in found))

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
                claims.sweep(images, lambda folder: folder.name in self._entries or _read_document(folder) is not None)
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
        if entry is not None and entry.image.content() == image.content():
            return await self._update(entry, image)
        if entry is not None and entry.files is not None:
            raise ConflictError(f"Image {image.namespace}/{image.name} is imported already; its source cannot change.")
        if entry is not None:
            await _end(entry.task)
            await _drop(entry)
        await _keep_document(self._folder(image), image)
        found = self._entries.get(image.uid)
        if found is not None and found is not entry:
            return await self._update(found, image)  # found in the pool meanwhile
        return self._take_up(image).report

    def upload_state(self, image_uid: str) -> UploadState:
        """Say how much of an upload is there; NotFoundError."""
        return upload_state(self._entry(image_uid))

    async def receive(
        self, image_uid: str, offset: int, total: int | None, chunks: AsyncIterator[bytes]
    ) -> UploadState:
        """Append a piece of an upload; `total` is the size of the file, if that is known.

        Raises:
            NotFoundError: the operator has not asked this node for the image.
            ConflictError: the image takes no upload now, or the piece does not fit to what is there.
            InvalidError: the file is larger than the pool can take.
        """
        entry = self._entry(image_uid)
        check_uploadable(entry)
        try:
            await receive(entry, offset, total, chunks, room_for(self._pools, entry))
        finally:
            if entry.files is None:
                entry.report = report_upload(entry, total)
                self._tell(image_uid)
        return upload_state(entry)

    async def finish_upload(self, image_uid: str, size_bytes: int, sha256: str) -> UploadState:
        """Have a complete upload checked and made an image.

        Raises:
            NotFoundError: the operator has not asked this node for the image.
            ConflictError: the image takes no upload now, or not all of the file is there.
        """
        entry = self._entry(image_uid)
        check_uploadable(entry)
        await finish(entry, size_bytes, sha256)
        return upload_state(entry)

    def open_copy(self, image_uid: str, token: str, *, initrd: bool = False) -> ImageCopy:
        """Return a file for another node that has the token of this image; NotFoundError says no more than that."""
        entry = self._entries.get(image_uid)
        known = entry.image.copy_token if entry else None
        shown = token.encode(errors="replace")  # a stranger's header: it may hold anything
        if entry is None or entry.files is None or not known or not hmac.compare_digest(known.encode(), shown):
            raise NotFoundError("There is no such copy here, or the token is not its own.")
        path, digest = entry.files.path, entry.report.sha256
        if initrd:
            path, digest = entry.files.initrd or path, entry.report.initrd_sha256
        if digest is None:
            raise NotFoundError("There is no such copy here, or the token is not its own.")
        return ImageCopy(path, digest)

    def _entry(self, uid: str) -> ImageEntry:
        try:
            return self._entries[uid]
        except KeyError:
            raise NotFoundError(f"This node has not been asked for the image {uid}.") from None

    async def _update(self, entry: ImageEntry, image: Image) -> ImageReport:
        """Take over what changed of an image whose content is the same: credentials, nodes that hold it."""
        if entry.image == image:
            return entry.report
        await _keep_document(entry.folder, image)
        entry.image = image
        entry.changed.set()
        return entry.report

    def _take_up(self, image: Image) -> ImageEntry:
        folder = self._folder(image)
        done = read_report(folder)
        entry = ImageEntry(image, folder, done or build_report(image, ImagePhase.PENDING))
        self._entries[image.uid] = entry
        if done is not None:
            sweep(folder)
            entry.files = find_files(entry, done)
        else:
            entry.task = asyncio.create_task(self._importer.run(entry))
        self._tell(image.uid)
        return entry

    async def _remove(self, image: Image, entry: ImageEntry | None) -> ImageReport:
        if users := self._disks.users(image.uid):
            raise ConflictError(f"Disks of these machines are backed by the image: {', '.join(users)}.")
        if entry is not None:
            entry.files = None  # before anything is waited for: no disk is made from it any more
            await _end(entry.task)
            await _drop(entry)
            del self._entries[image.uid]
            self._tell(image.uid)
        return build_report(image, ImagePhase.PENDING)

    def _tell(self, uid: str) -> None:
        for callback in self._callbacks:
            callback(uid)

    def _folder(self, image: Image) -> Path:
        return self._pools.folder(image.pool, "images") / image.uid


def _read_document(folder: Path) -> Image | None:
    try:
        return Image.model_validate_json(read_small(folder / DOCUMENT) or b"")
    except ValidationError:
        return None


async def _keep_document(folder: Path, image: Image) -> None:
    """Keep what is wanted of an image; in a shared pool, when no other node works on it."""
    kept = image.without_secrets()
    if _read_document(folder) != kept:
        async with claimed(folder, _idle, PATIENCE_SECONDS):
            write_whole(make_folder(folder) / DOCUMENT, kept.model_dump_json().encode())


async def _drop(entry: ImageEntry) -> None:
    """Remove the files of an image; of a shared pool, when no other node works on them."""
    async with claimed(entry.folder, _idle, PATIENCE_SECONDS):
        # The mark of completeness goes first: a crash from here on leaves what is imported again or removed.
        (entry.folder / READY).unlink(missing_ok=True)
        await asyncio.to_thread(claims.remove_claimed, entry.folder)


def _idle() -> None:
    """Wait for another node without a word: the sender of an instruction is told when it takes too long."""


async def _end(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
