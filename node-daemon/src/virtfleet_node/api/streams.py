"""Watch streams: one JSON document a line, to readers that may be slow, gone or hostile."""

import asyncio
from contextlib import aclosing
from typing import Final

from aiohttp import web

from virtfleet_node.api.journal import Journal
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.core.errors import UnavailableError

MOST_READERS: Final = 16
"""An operator needs one; two replicas and a few that are on their way out are served."""

PIECE_BYTES: Final = 65536
"""A line is handed to the reader in pieces of this size, each of which must be taken in time."""

STALL_SECONDS: Final = 15.0
"""A reader that takes nothing for so long is cut off; it comes back and resumes by its cursor."""


class Streams:
    """The watch streams that are open."""

    def __init__(self, journal: Journal, metrics: ApiMetrics, stall_seconds: float = STALL_SECONDS) -> None:
        self._journal = journal
        self._metrics = metrics
        self._stall_seconds = stall_seconds
        self._tasks: set[asyncio.Task[object]] = set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Tell a reader of everything from its cursor on, until it leaves; UnavailableError if there are too many."""
        if len(self._tasks) >= MOST_READERS:
            raise UnavailableError(f"There are {MOST_READERS} watch streams already.")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a handler is a task
        self._tasks.add(task)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            with self._metrics.watching():
                await self._follow(request, response)
        except (ConnectionError, TimeoutError):
            _cut(request)  # gone, or too slow: nothing can be said to it any more
        finally:
            self._tasks.discard(task)
        return response

    def end(self) -> None:
        """End all streams: the daemon stops."""
        for task in self._tasks:
            task.cancel()

    async def _follow(self, request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        async with aclosing(self._journal.watch(request.query.get("cursor"))) as events:
            async for event in events:
                line = event.model_dump_json(exclude_none=True).encode() + b"\n"
                for start in range(0, len(line), PIECE_BYTES):
                    async with asyncio.timeout(self._stall_seconds):
                        await response.write(line[start : start + PIECE_BYTES])


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
