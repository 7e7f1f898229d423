"""A display without a guest, at the port `virtfleet_node.core.ports.DisplayStream`."""

import asyncio

from virtfleet_node.core.errors import ConflictError


class MadeUpDisplay:
    """What is shown here comes out of `read`; what a viewer sends is kept."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.reads = 0
        self.closed = False
        self.ended = False
        self.takes_input = asyncio.Event()
        self.takes_input.set()
        self._shown: asyncio.Queue[bytes] = asyncio.Queue()

    def show(self, data: bytes) -> None:
        """Send as QEMU does; nothing is the end of the guest."""
        self.ended = not data
        self._shown.put_nowait(data)

    async def read(self) -> bytes:
        """Return what was shown next."""
        self.reads += 1
        return await self._shown.get()

    async def write(self, data: bytes) -> None:
        """Take what a viewer sends, unless QEMU does not read."""
        await self.takes_input.wait()
        if self.ended:
            raise ConflictError("The display has ended.")
        self.taken += data

    async def close(self) -> None:
        """Let it go."""
        self.closed = True


class Displays:
    """Opens displays: each viewer has one."""

    def __init__(self) -> None:
        self.opened: list[MadeUpDisplay] = []
        self.refusal: Exception | None = None

    @property
    def last(self) -> MadeUpDisplay:
        """Return the display that was opened last."""
        return self.opened[-1]

    async def open(self) -> MadeUpDisplay:
        """Open a display."""
        if self.refusal:
            raise self.refusal
        self.opened.append(MadeUpDisplay())
        return self.last
