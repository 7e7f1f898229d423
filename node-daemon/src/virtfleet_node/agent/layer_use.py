"""Who opens layers of disks. A merge writes a layer that a guest or a copy cannot open meanwhile, so it gives way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from virtfleet_node.core.errors import UnavailableError
from virtfleet_node.core.stored import StoredDisk


class LayerUse:
    """The files that are about to be opened, and the merges that go on, on the whole node."""

    def __init__(self) -> None:
        self._used: Counter[Path] = Counter()
        self._merges: dict[asyncio.Task[None], frozenset[Path]] = {}

    @asynccontextmanager
    async def using(self, disks: Iterable[StoredDisk]) -> AsyncIterator[None]:
        """End the merges of layers that these disks are made of, and have none begun while they are opened."""
        files = [path for disk in disks for path in (disk.path, *disk.layers)]
        self._used.update(files)
        try:
            ended = [task for task, touched in self._merges.items() if not touched.isdisjoint(files)]
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)
            yield
        finally:
            self._used -= Counter(files)

    async def merge(self, files: frozenset[Path], work: Callable[[], Awaitable[None]]) -> None:
        """Do what writes these files, until somebody is to open one. It must look for guests itself, at its beginning.

        Raises:
            UnavailableError: somebody opens one, or merges it already.
        """
        others = frozenset().union(*self._merges.values())
        if files & (self._used.keys() | others):
            raise UnavailableError("Its files are in use.")
        task = asyncio.ensure_future(_run(work))
        self._merges[task] = files
        try:
            await task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) is None or current.cancelling():
                raise
            raise UnavailableError("It was ended, as a guest was to be started or a disk to be copied.") from None
        finally:
            del self._merges[task]


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
