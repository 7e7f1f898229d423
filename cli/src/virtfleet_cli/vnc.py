"""The display of a machine, for a VNC viewer on this computer: a loopback port, and the way through the API server.

A viewer that connects again finds the next operator; the VNC protocol cannot go on where it was on another connection.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import click
from aiohttp import WSMsgType

from virtfleet_cli.cluster import Cluster
from virtfleet_cli.connections import Connections
from virtfleet_cli.console import RECONNECT_SECONDS, RETRY_SECONDS, End, judge
from virtfleet_cli.errors import CliError, UnavailableError
from virtfleet_cli.leaving import told_to_end

HOST: Final = "127.0.0.1"
"""Never an address that others reach: whoever connects has the rights of the user."""

VIEWERS: Final = ("remote-viewer", "vncviewer", "xtigervncviewer", "xtightvncviewer")
"""Looked for in this order."""

_CHUNK_BYTES: Final = 65536
"""Largest frame that is sent, as the operator takes it."""


async def show_display(cluster: Cluster, name: str, *, port: int | None, viewer: str | None, proxy_only: bool) -> None:
    """Serve a machine's display to viewers until the user leaves or the viewer that was started ends.

    Raises:
        CliError: the display cannot be had, the port is taken, or the viewer cannot be started.
    """
    program = None if proxy_only else find_viewer(viewer)
    async with cluster.open_display(name):
        pass  # what stands against it is said now, rather than by a viewer
    proxy = DisplayProxy(cluster, name)
    async with proxy.listening(port or 0) as bound:
        if proxy_only:
            click.echo(json.dumps({"port": bound}))
        elif program is None:
            click.echo(f"Point a VNC viewer at {HOST}:{bound}; Ctrl-C leaves. (There is none of {', '.join(VIEWERS)}.)")
        with told_to_end() as left:
            if program is None:
                await left.wait()
            else:
                await _view(proxy, program, bound, left)


def find_viewer(wanted: str | None) -> str | None:
    """Return the path of a viewer, None when there is none; CliError when the one that is wanted is not there."""
    found = next((path for name in ((wanted,) if wanted else VIEWERS) if (path := shutil.which(name))), None)
    if wanted and found is None:
        raise CliError(f"There is no program {wanted}; name one with --viewer, or use --proxy-only.")
    return found


def viewer_command(program: str, port: int) -> tuple[str, str]:
    """Return how a viewer is started: most take host::port."""
    return program, f"vnc://{HOST}:{port}" if Path(program).name == "remote-viewer" else f"{HOST}::{port}"


class DisplayProxy:
    """The viewers of this computer, each with a connection of its own to the display."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._connections = Connections(self._serve)
        self.end = End()
        """How the connection ended that ended last."""

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[int]:
        """Take viewers for as long as the context lasts; the value is the port. CliError when it is taken."""
        try:
            server = await asyncio.start_server(self._connections.begin, HOST, port)
        except OSError as error:
            raise CliError(f"Port {port} cannot be listened on: {error.strerror}.") from error
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await self._connections.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.end = await self._connect(reader, writer)
        except CliError as error:
            self.end = End(str(error), failed=True)
        finally:
            writer.transport.abort()
        if self.end.sentence:
            click.echo(self.end.sentence, err=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> End:
        """Connect a viewer with the display; it waits while an operator takes over, since the server speaks first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RECONNECT_SECONDS
        while True:
            try:
                async with self._cluster.open_display(self._name) as display:
                    return await _converse(display, reader, writer)
            except UnavailableError:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)


async def _converse(
    display: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> End:
    show = asyncio.create_task(_show(display, writer))
    take = asyncio.create_task(_take(reader, display))
    try:
        await asyncio.wait((show, take), return_when=asyncio.FIRST_COMPLETED)
        return show.result() if show.done() else End()
    finally:
        for task in (show, take):
            task.cancel()
        await asyncio.gather(show, take, return_exceptions=True)


async def _show(display: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> End:
    """Hand the viewer what the display shows until the connection ends, and say why it did."""
    while (message := await display.receive()).type is WSMsgType.BINARY:
        try:
            writer.write(message.data)
            await writer.drain()
        except ConnectionError:
            return End()  # the viewer has left
    return judge(display.close_code, str(message.extra or "") if message.type is WSMsgType.CLOSE else "")


async def _take(reader: asyncio.StreamReader, display: aiohttp.ClientWebSocketResponse) -> None:
    """Pass on what the viewer sends until it leaves."""
    try:
        while data := await reader.read(_CHUNK_BYTES):
            await display.send_bytes(data)
    except ConnectionError:
        return  # the viewer has left, or the other side tells why the connection ended


async def _view(proxy: DisplayProxy, program: str, port: int, left: asyncio.Event) -> None:
    """Run a viewer, and once more when it ended because the connection was lost."""
    leaving = asyncio.create_task(left.wait())
    again = True
    while again and not left.is_set():
        proxy.end = End()
        process = await _start(viewer_command(program, port))
        ended = asyncio.create_task(process.wait())
        await asyncio.wait((ended, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
        status = await ended
        again = proxy.end.connect_again
        if status and not again and not left.is_set():
            raise CliError(f"The viewer {program} ended with status {status}.")
    leaving.cancel()
    if proxy.end.failed:
        raise CliError("The display was closed.")


async def _start(command: tuple[str, str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        raise CliError(f"The viewer {command[0]} cannot be started: {error.strerror}.") from error
