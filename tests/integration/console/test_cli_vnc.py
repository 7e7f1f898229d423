"""`kubectl vm vnc` through a real API server: its port, the viewer that it starts, and what it says."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM = str(Path(sys.executable).with_name("kubectl-vm"))
DEADLINE_SECONDS = 30.0

VIEWER = """#!{python}
import socket, sys
address = sys.argv[1].removeprefix("vnc://").replace("::", ":")
print(sys.argv[1].replace(address.rpartition(":")[2], "PORT"), flush=True)
with socket.create_connection(address.rsplit(":", 1)) as connection:
    connection.sendall(b"hello")
    received = b""
    while received != b"hello" and (data := connection.recv(5)):
        received += data
    print(received.decode(), flush=True)
    if {stays}:
        connection.recv(1)
"""


@asynccontextmanager
async def running(
    lab: Lab, user: str, *arguments: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    await lab.user(user)
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("--kubeconfig", str(lab.folder / user), "vnc"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/nowhere", **environment},
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    return (await process.stdout.readline()).decode().strip()


async def finished(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Return exit status, and what is left of stdout and stderr."""
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def write_viewer(folder: Path, name: str = "vncviewer", *, stays: bool = False) -> str:
    path = folder / name
    path.write_text(VIEWER.format(python=sys.executable, stays=stays))
    path.chmod(0o755)
    return str(path)


async def converse(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    received = await reader.readexactly(len(data))
    writer.close()
    return received


async def test_the_port_is_printed_and_each_viewer_has_its_own_connection(lab: Lab) -> None:
    async with running(lab, "dora", "web", "--proxy-only") as process:
        port = json.loads(await line(process))["port"]
        big = bytes(range(256)) * 1024
        assert await asyncio.gather(converse(port, b"RFB"), converse(port, big)) == [b"RFB", big]
        process.send_signal(signal.SIGINT)
        assert await finished(process) == (0, "", "")


async def test_a_port_that_is_wanted_is_used_and_one_that_is_taken_is_told(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(lab, "dora", "web", "--proxy-only", "--port", str(port)) as process:
            code, out, err = await finished(process)
            assert (code, out) == (1, "")
            assert err.startswith(f"Port {port} cannot be listened on: ")
    async with running(lab, "dora", "web", "--proxy-only", "--port", str(port)) as process:
        assert json.loads(await line(process)) == {"port": port}


@pytest.mark.parametrize(
    ("name", "address"), [("vncviewer", "127.0.0.1::PORT"), ("remote-viewer", "vnc://127.0.0.1:PORT")]
)
async def test_the_viewer_on_the_path_is_started_and_ends_the_command(
    lab: Lab, tmp_path: Path, name: str, address: str
) -> None:
    write_viewer(tmp_path, name)
    async with running(lab, "dora", "web", PATH=str(tmp_path)) as process:
        assert await finished(process) == (0, f"{address}\nhello\n", "")


async def test_a_viewer_whose_connection_was_lost_is_started_again(lab: Lab, tmp_path: Path) -> None:
    lab.node.behave = lab.node.drop
    async with running(lab, "dora", "web", "--viewer", write_viewer(tmp_path)) as process:
        assert process.stderr
        assert b"The connection to the node of VirtualMachine default/web was lost." in await process.stderr.readline()
        lab.node.behave = lab.node.echo
        code, out, _ = await finished(process)
        assert code == 0
        assert out.endswith("hello\n")


async def test_without_a_viewer_it_says_where_to_look(lab: Lab) -> None:
    async with running(lab, "dora", "web") as process:
        said = await line(process)
        assert said.startswith("Point a VNC viewer at 127.0.0.1:")
        port = int(said.split(";")[0].rpartition(":")[2])
        assert await converse(port, b"RFB") == b"RFB"
        process.send_signal(signal.SIGTERM)
        assert (await finished(process))[0] == 0


async def test_a_right_that_is_withdrawn_ends_it_as_a_failure(lab: Lab, tmp_path: Path) -> None:
    await lab.grant("dana", "display-users")
    async with running(lab, "dana", "web", "--viewer", write_viewer(tmp_path, stays=True)) as process:
        assert await line(process) == "127.0.0.1::PORT"
        assert await line(process) == "hello"
        await lab.kubectl("delete", "clusterrolebinding", "dana-display-users")
        code, _, err = await finished(process)
        assert code == 1
        assert "The right to this display was withdrawn." in err


async def test_a_picture_of_what_is_no_display_is_a_sentence(lab: Lab, tmp_path: Path) -> None:
    lab.node.behave = lab.node.say_and_close
    await lab.user("dora")
    path = tmp_path / "web.png"
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("screenshot", "web", "-o", str(path), "--kubeconfig", str(lab.folder / "dora")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await finished(process) == (1, "", "The display ended before it was seen whole.\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("user", "arguments", "sentence"),
    [
        ("carl", ["web"], "You may not do this: "),
        ("dora", ["absent"], "VirtualMachine default/absent does not exist; `kubectl get vm -A` lists all."),
        ("dora", ["web", "--viewer", "no-such-viewer"], "There is no program no-such-viewer; name one with --viewer"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    lab: Lab, tmp_path: Path, user: str, arguments: list[str], sentence: str
) -> None:
    write_viewer(tmp_path)
    async with running(lab, user, *arguments, PATH=str(tmp_path)) as process:
        code, out, err = await finished(process)
    assert (code, out) == (1, ""), "no viewer is started"
    assert sentence in err
    assert "Traceback" not in err
