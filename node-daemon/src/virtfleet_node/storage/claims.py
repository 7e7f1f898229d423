"""One at a time works on an image's folder, also when several nodes share the pool: a lock on `<folder>.lock`.

flock(2) ends with the process that holds it, whatever kills it, and works between nodes on NFS and cluster file
systems.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from virtfleet_node.core.errors import UnavailableError
from virtfleet_node.storage.files import remove_folder

SUFFIX: Final = ".lock"

_LOOK_SECONDS: Final = 1.0
"""Between attempts: no file system tells another node of a lock that was let go."""

PATIENCE_SECONDS: Final = 5.0
"""How long an instruction waits for a claim; its sender gives up after 20 s and comes again."""


@asynccontextmanager
async def claimed(folder: Path, waiting: Callable[[], None], seconds: float | None = None) -> AsyncIterator[None]:
    """Work alone on a folder that may not exist. `waiting` is called while somebody else works on it.

    Raises:
        UnavailableError: somebody else still did after `seconds`.
        OSError: the pool cannot be written.
    """
    end = None if seconds is None else asyncio.get_running_loop().time() + seconds
    while (descriptor := try_claim(folder)) is None:
        waiting()
        if end is not None and asyncio.get_running_loop().time() >= end:
            raise UnavailableError("Another node works on this image in the shared pool; it is tried again.")
        await asyncio.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def try_claim(folder: Path) -> int | None:
    """Return a descriptor that holds the claim until it is closed, or None when somebody else has it."""
    lock = _lock(folder)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_named(descriptor, lock):
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def remove_claimed(folder: Path) -> None:
    """Remove a folder with its lock; for who holds the claim, which ends with it."""
    remove_folder(folder)
    _lock(folder).unlink(missing_ok=True)


def sweep(images: Path, is_whole: Callable[[Path], bool]) -> None:
    """Remove folders that are not whole and locks without a folder, unless somebody works on them."""
    folders = {Path(entry.path) for entry in os.scandir(images) if entry.is_dir(follow_symlinks=False)}
    locks = {Path(e.path.removesuffix(SUFFIX)) for e in os.scandir(images) if e.name.endswith(SUFFIX)}
    for folder in folders | locks:
        if folder in folders and is_whole(folder):
            continue
        if (descriptor := try_claim(folder)) is not None:
            try:
                if not is_whole(folder):  # it may have been made whole since
                    remove_claimed(folder)
            finally:
                os.close(descriptor)


def _lock(folder: Path) -> Path:
    return folder.with_name(folder.name + SUFFIX)


def _is_named(descriptor: int, lock: Path) -> bool:
    """Tell whether the lock is still the one with the name: it is removed with its folder."""
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False
