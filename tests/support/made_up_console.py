"""A serial console without a guest, at the port `virtfleet_node.core.ports.ConsoleStream`."""

import asyncio


class MadeUpConsole:
    """What is said here comes out of `read`; what is typed is kept."""

    def __init__(self) -> None:
        self.typed = bytearray()
        self.closed = False
        self.reads_input = asyncio.Event()
        self.reads_input.set()
        self._output: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    def say(self, data: bytes) -> None:
        """Write as the guest does."""
        self._output.put_nowait(data)

    def stop(self) -> None:
        """End, as a guest that is shut down."""
        self._output.put_nowait(b"")

    def break_down(self) -> None:
        """Fail, as a stream of a libvirtd that was killed."""
        self._output.put_nowait(OSError("end of file while reading data"))

    async def read(self) -> bytes:
        """Return what was said next."""
        data = await self._output.get()
        if isinstance(data, Exception):
            raise data
        return data

    async def write(self, data: bytes) -> None:
        """Take what is typed, unless the guest does not read."""
        await self.reads_input.wait()
        self.typed += data

    async def close(self) -> None:
        """Let it go."""
        self.closed = True


class Consoles:
    """Opens consoles as libvirt does: one at a time."""

    def __init__(self) -> None:
        self.opened: list[MadeUpConsole] = []
        self.delay = 0.0
        self.refusal: Exception | None = None

    @property
    def last(self) -> MadeUpConsole:
        """Return the console that was opened last."""
        return self.opened[-1]

    async def open(self) -> MadeUpConsole:
        """Open a console; libvirt refuses a second one."""
        if self.refusal:
            raise self.refusal
        assert all(console.closed for console in self.opened), "Active console session exists for this domain"
        self.opened.append(MadeUpConsole())
        await asyncio.sleep(self.delay)
        return self.last
