"""A machine's display and console as a user has them: `kubectl vm` as a program, and a viewer at its port."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtfleet_cli.rfb import Picture, look
from virtfleet_dev.paths import program

DEADLINE_SECONDS = 60


@contextmanager
def proxy(kubeconfig: Path, machine: str) -> Iterator[int]:
    """Run `kubectl vm vnc --proxy-only` for as long as the context lasts; the value is its port."""
    command = [program("kubectl-vm"), "--kubeconfig", kubeconfig, "vnc", machine, "--proxy-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield int(json.loads(line)["port"])
        finally:
            process.terminate()


def see(port: int) -> Picture:
    """Return what a viewer at a port sees; OSError or RfbError when the display cannot be had now."""
    return asyncio.run(_see(port))


async def _see(port: int) -> Picture:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await look(lambda: reader.read(65536), write)
    finally:
        writer.close()
