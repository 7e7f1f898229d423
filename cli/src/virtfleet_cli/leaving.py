"""Leave in good order when the program is asked to end."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NUMBERS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@contextmanager
def told_to_end(left: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
    """Have an event, one that is given or a new one, be set by the signals that ask a program to end."""
    left, loop = left or asyncio.Event(), asyncio.get_running_loop()
    for number in _NUMBERS:
        loop.add_signal_handler(number, left.set)
    try:
        yield left
    finally:
        for number in _NUMBERS:
            loop.remove_signal_handler(number)
