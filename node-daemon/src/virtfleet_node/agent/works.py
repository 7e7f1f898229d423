"""Long actions: each a task beside the queue, begun by a plan, left alone while planned, and ended when not."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from virtfleet_node.agent.entry import Entry, Work
from virtfleet_node.core.actions import Action, LongAction
from virtfleet_node.core.errors import ConflictError, NodeError, UnavailableError

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 60.0
"""A pool without room is looked at once a minute."""

_MOST_FAILURES: Final = 8  # as many as double the first wait beyond the longest

STEP: Final = 2
"""Percent between two reports of progress: fifty reports, whatever the size."""


class Works:
    """The long actions that go on; what is known of them is in the machines' entries."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        perform: Callable[[str, Work], Awaitable[None]],
        describe: Callable[[LongAction], str],
        wake: Callable[[str], None],
    ) -> None:
        self._entries = entries
        self._perform = perform
        self._describe = describe
        self._wake = wake

    async def stop(self) -> None:
        """End everything; it is begun again at the next start."""
        for entry in self._entries.values():
            await _end(entry)

    async def settle(self, entry: Entry, actions: Iterable[Action]) -> bool:
        """End what goes on for a machine and is no longer planned; tell whether there was such."""
        if entry.work is None or entry.work.action in actions:
            return False
        await _end(entry)
        return True

    def further(self, entry: Entry, action: LongAction) -> bool:
        """Begin an action unless it goes on already; tell whether it goes on, or waits after a failure.

        Raises:
            NodeError: what it failed with, once; it is begun anew after a while.
        """
        work = entry.work
        if work is None:
            self._begin(entry, Work(action, self._describe(action)))
        elif work.error is not None and not work.told:
            work.told = True
            seconds = min(_FIRST_RETRY_SECONDS * 2.0**work.failures, _LONGEST_RETRY_SECONDS)
            asyncio.get_running_loop().call_later(seconds, self._begin_anew, entry, work)
            raise work.error
        return entry.work is not None and not entry.work.told

    def _begin(self, entry: Entry, work: Work) -> None:
        uid = entry.desired.uid
        _LOG.info("Beginning an action", extra={"uid": uid, "action": str(work.action)})
        entry.work = work
        work.task = asyncio.create_task(self._run(entry, work), name=f"work-{uid}")
        self._wake(uid)

    def _begin_anew(self, entry: Entry, failed: Work) -> None:
        """Begin what has failed, unless it is no longer wanted."""
        if entry.work is failed:
            self._begin(entry, Work(failed.action, failed.about, failures=min(failed.failures + 1, _MOST_FAILURES)))

    async def _run(self, entry: Entry, work: Work) -> None:
        uid = entry.desired.uid
        try:
            await self._perform(uid, work)
        except NodeError as error:
            work.error = error
        except OSError as error:
            work.error = ConflictError(f"The pool failed: {error.strerror or error}.")
        except Exception:  # noqa: BLE001 -- logged with its traceback; the machine says so and tries again
            _LOG.exception("Failing unexpectedly", extra={"uid": uid, "action": str(work.action)})
            work.error = UnavailableError("It failed unexpectedly: see the daemon's log.")
        else:
            entry.work = None
        self._wake(uid)


async def to_end(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call in a thread, and wait for its end even when cancelled: files appear before or after, not meanwhile."""
    thread = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait((thread,))
        raise


async def _end(entry: Entry) -> None:
    work, entry.work = entry.work, None
    if work is not None and work.task is not None:
        work.task.cancel()
        with suppress(asyncio.CancelledError):
            await work.task
