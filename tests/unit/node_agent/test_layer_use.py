"""Merges of layers give way to whoever opens one of their files."""

import asyncio
from pathlib import Path

import pytest

from virtfleet_api.image import ImageFormat
from virtfleet_node.agent.layer_use import LayerUse
from virtfleet_node.core.errors import UnavailableError
from virtfleet_node.core.stored import StoredDisk

ONE, TWO, THREE = (Path(f"/pool/disks/a/root.{number}.qcow2") for number in (1, 2, 3))


def disk(*files: Path) -> StoredDisk:
    return StoredDisk("default", "root", files[0], ImageFormat.QCOW2, 1, layers=files[1:])


class Merge:
    """A merge that goes on until it is ended."""

    def __init__(self, use: LayerUse, *files: Path) -> None:
        self.ended = False
        self._going = asyncio.Event()
        self.task = asyncio.ensure_future(use.merge(frozenset(files), self._work))

    async def begun(self) -> "Merge":
        await self._going.wait()
        return self

    async def _work(self) -> None:
        self._going.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)  # what ends it takes a moment
            self.ended = True


async def test_a_merge_is_over_before_its_files_are_opened() -> None:
    use = LayerUse()
    merge = await Merge(use, ONE, TWO).begun()
    other = await Merge(use, THREE).begun()
    async with use.using([disk(TWO, ONE)]):
        assert merge.ended
        assert not other.ended
        with pytest.raises(UnavailableError, match="ended"):
            await merge.task
        with pytest.raises(UnavailableError, match="in use"):
            await use.merge(frozenset({ONE}), asyncio.Event().wait)  # type: ignore[arg-type]
    again = await Merge(use, ONE, TWO).begun()
    for task in (again.task, other.task):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert again.ended, "who ends a merge for another reason waits for it, too"


async def test_files_are_merged_once_at_a_time() -> None:
    use = LayerUse()
    merge = await Merge(use, ONE, TWO).begun()
    with pytest.raises(UnavailableError, match="in use"):
        await use.merge(frozenset({TWO, THREE}), asyncio.Event().wait)  # type: ignore[arg-type]
    merge.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await merge.task


async def test_files_are_free_once_the_last_has_opened_them() -> None:
    use = LayerUse()
    async with use.using([disk(ONE)]):
        async with use.using([disk(ONE)]):
            pass
        with pytest.raises(UnavailableError):
            await Merge(use, ONE).task
    merge = await Merge(use, ONE).begun()
    merge.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await merge.task
