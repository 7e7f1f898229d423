"""An image from a disk of a machine or a snapshot: who copies disks writes the file, anew at every attempt."""

import asyncio
import errno
from collections.abc import Callable

from virtfleet_api.image import CopyOrigin
from virtfleet_node.core.errors import ConflictError, NodeError, PoolFullError
from virtfleet_node.core.ports import ExportDisk
from virtfleet_node.storage.entry import ImageEntry
from virtfleet_node.storage.failures import ImportFailedError
from virtfleet_node.storage.fetch import Fetched, sha256_of
from virtfleet_node.storage.files import PARTIAL


async def copy_disk(
    entry: ImageEntry, origin: CopyOrigin, export: ExportDisk, progress: Callable[[float], None]
) -> Fetched:
    """Return the complete copy, still under its partial name.

    Raises:
        ImportFailedError: with what went wrong; nothing is left of the file then.
    """
    partial = entry.target.with_name(entry.target.name + PARTIAL)
    _remove(entry)
    progress(0)
    try:
        await export(origin, entry.image.pool, partial, progress)
        return Fetched(partial, await asyncio.to_thread(sha256_of, partial))
    except BaseException as error:
        _remove(entry)
        if (failure := _failure(entry, error)) is None:
            raise
        raise failure from None


def _remove(entry: ImageEntry) -> None:
    """Remove what an earlier attempt left, also one to copy from another node."""
    for leftover in entry.folder.glob(f"{entry.target.name}{PARTIAL}*"):
        leftover.unlink(missing_ok=True)


def _failure(entry: ImageEntry, error: BaseException) -> ImportFailedError | None:
    match error:
        case PoolFullError():
            return ImportFailedError("PoolFull", str(error))
        case OSError() if error.errno == errno.ENOSPC:
            return ImportFailedError("PoolFull", f"Pool {entry.image.pool} is full: free space in it.")
        case ConflictError():
            return ImportFailedError("SourceNotReady", str(error))
        case NodeError():
            return ImportFailedError("CopyFailed", str(error))
    return None
