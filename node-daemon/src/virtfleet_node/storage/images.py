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
from virtfleet_node.core.stored import ImageCopy, ImageFiles
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.entry import DOCUMENT, READY, ImageEntry, build_report
from virtfleet_node.storage.fetch import STALL_SECONDS
from virtfleet_node.storage.files import make_folder, read_small, remove_folder, subfolders, write_whole
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

    def reports(self) -> tuple[ImageReport, ...]:
        """Return a report of each image."""
        return tuple(entry.report for entry in self._entries.values())

    def files(self, image_uid: str) -> ImageFiles | None:
        """Return the files of an image that is Ready."""
        entry = self._entries.get(image_uid)
        return entry.files if entry else None

    async def start(self) -> None:
        """Take up what an earlier process left: complete images, imports and removals."""
        for pool in self._pools.names():
            for folder in subfolders(self._pools.folder(pool, "images")):
                image = _read_document(folder)
                if image is None:
                    remove_folder(folder)  # a crash before the document was written: nothing can be backed by it
                else:
                    self._take_up(image)

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
            return self._update(entry, image)
        if entry is not None and entry.files is not None:
            raise ConflictError(f"Image {image.namespace}/{image.name} is imported already; its source cannot change.")
        if entry is not None:
            await _end(entry.task)
            remove_folder(entry.folder)
        folder = make_folder(self._folder(image))
        write_whole(folder / DOCUMENT, image.without_secrets().model_dump_json().encode())
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

    def _update(self, entry: ImageEntry, image: Image) -> ImageReport:
        """Take over what changed of an image whose content is the same: credentials, nodes that hold it."""
        if entry.image == image:
            return entry.report
        if entry.image.without_secrets() != (kept := image.without_secrets()):
            write_whole(entry.folder / DOCUMENT, kept.model_dump_json().encode())
        entry.image = image
        entry.changed.set()
        return entry.report

    def _take_up(self, image: Image) -> ImageEntry:
        folder = self._folder(image)
        done = _read_report(folder / READY)
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
            del self._entries[image.uid]
            # The mark of completeness goes first: a crash from here on leaves what is imported again or removed.
            (entry.folder / READY).unlink(missing_ok=True)
            await asyncio.to_thread(remove_folder, entry.folder)
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


def _read_report(path: Path) -> ImageReport | None:
    try:
        return ImageReport.model_validate_json(read_small(path) or b"")
    except ValidationError:
        return None


async def _end(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
