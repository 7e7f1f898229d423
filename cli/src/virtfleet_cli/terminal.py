"""The user's terminal: raw while a console is open, and as it was afterwards, whatever happens.

Input is read by a thread of its own, since files, pipes and terminals cannot all be waited for by the event loop.
"""

import asyncio
import os
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

ESCAPE: Final = b"\x1d"
"""Ctrl-], as telnet, virsh and virtctl have it."""

CHUNK_BYTES: Final = 4096
"""A paste of this size goes out in one frame."""

QUEUED_CHUNKS: Final = 16
"""Input read ahead of a slow guest; then the terminal itself is left unread."""


class Terminal:
    """Standard input and output."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._output = sys.stdout.fileno()
        self.interactive = os.isatty(self._input)
        """Whether a person types: only then is the terminal made raw and the escape key looked for."""

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Hand every key to the guest for as long as the context lasts."""
        if not self.interactive:
            yield
            return
        before = termios.tcgetattr(self._input)
        try:
            tty.setraw(self._input)
            yield
        finally:
            termios.tcsetattr(self._input, termios.TCSADRAIN, before)

    def start_reading(self) -> "asyncio.Queue[bytes]":
        """Read input from now on; the queue ends with b"" when the input does."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUED_CHUNKS)
        loop = asyncio.get_running_loop()

        def read() -> None:
            data = b"."
            while data:
                try:
                    data = os.read(self._input, CHUNK_BYTES)
                except OSError:
                    data = b""  # the terminal has hung up
                try:
                    asyncio.run_coroutine_threadsafe(queue.put(data), loop).result()
                except (RuntimeError, asyncio.CancelledError):
                    return  # the session is over

        threading.Thread(target=read, name="input", daemon=True).start()
        return queue

    async def write(self, data: bytes) -> None:
        """Show bytes of the guest as they are."""
        await asyncio.to_thread(self._write, data)

    def close_output(self) -> None:
        """Say that nothing more will be written, where the output is a pipe."""
        with suppress(OSError):
            os.close(self._output)

    def say(self, sentence: str) -> None:
        """Tell the user something on stderr, also while the terminal is raw."""
        os.write(sys.stderr.fileno(), f"\r{sentence}\r\n".encode() if self.interactive else f"{sentence}\n".encode())

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]
