"""`kubectl vm port-forward`, `ssh` and `scp` as people and scripts use them, through a real API server."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_ports import answer_at_the_end, break_off, greet
from virtfleet_api.node_api import Problem, ProblemReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Lab, Parts

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM = str(Path(sys.executable).with_name("kubectl-vm"))
DEADLINE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def ports(lab: Lab, calm: None) -> None:  # noqa: ARG001 -- it comes first
    lab.node.behave = answer_at_the_end


@asynccontextmanager
async def running(lab: Lab, user: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    await lab.user(user)
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("--kubeconfig", str(lab.folder / user), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(lab: Lab, user: str, *arguments: str, given: bytes = b"") -> tuple[int | None, bytes, str]:
    async with running(lab, user, *arguments) as process:
        out, err = await process.communicate(given)
    return process.returncode, out, err.decode()


async def listening(process: asyncio.subprocess.Process) -> int:
    """Return the port that the next line of output names."""
    assert process.stdout
    said = (await process.stdout.readline()).decode()
    assert said.startswith("Forwarding from "), said
    return int(said.split(" -> ")[0].rpartition(":")[2])


async def exchange(port: int, sent: bytes, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(sent)
    await writer.drain()
    writer.write_eof()
    received = await reader.read()
    writer.close()
    return received


async def test_a_port_of_the_guest_is_reached_at_one_here(lab: Lab) -> None:
    lab.node.queries.clear()
    sent = bytes(range(256)) * 4096
    async with running(lab, "fred", "port-forward", "web", ":80", ":8080", "--address", "127.0.0.1") as process:
        first, second = await listening(process), await listening(process)
        answers = await asyncio.gather(*(exchange(port, sent) for port in (first, second, first)))
        assert answers == [sent, sent, sent]
        assert process.stdout
        handled = sorted([await process.stdout.readline() for _ in range(3)])
        assert handled == sorted(f"Handling connection for {port}\n".encode() for port in (first, first, second))
        assert sorted(query["port"] for query in lab.node.queries) == ["80", "80", "8080"]
        process.terminate()
        assert await process.wait() == 0


async def test_localhost_is_both_of_its_addresses(lab: Lab) -> None:
    async with running(lab, "fred", "port-forward", "web", ":80") as process:
        port = await listening(process)
        assert await exchange(port, b"one") == b"one"
        assert await listening(process) == port
        assert await exchange(port, b"two", "::1") == b"two"


async def test_a_guest_that_breaks_off_is_seen_as_that(lab: Lab) -> None:
    lab.node.behave = break_off
    async with running(lab, "fred", "port-forward", "web", ":80", "--address", "127.0.0.1") as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", await listening(process))
        assert await reader.readexactly(4) == b"half"
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert process.stderr
        said = (await process.stderr.readline()).decode()
        assert said == "error: The guest of VirtualMachine default/web broke the connection off.\n"


async def test_what_a_guest_refuses_is_said_and_the_port_stays(lab: Lab) -> None:
    async with running(lab, "fred", "port-forward", "web", ":80", "--address", "127.0.0.1") as process:
        port = await listening(process)
        lab.node.refusal = Problem(reason=ProblemReason.CONFLICT, message="Nothing listens there.")
        with pytest.raises(ConnectionResetError):
            await exchange(port, b"")
        assert process.stderr
        said = (await process.stderr.readline()).decode()
        assert (
            said == "error: VirtualMachine default/web cannot be connected to: node-a refuses: Nothing listens there.\n"
        )
        lab.node.refusal = None
        assert await exchange(port, b"again") == b"again"


@pytest.mark.parametrize(
    ("user", "arguments", "sentence"),
    [
        ("carl", ["web", "80"], "You may not do this: "),
        ("fred", ["absent", "80"], "VirtualMachine default/absent does not exist; `kubectl get vm -A` lists all."),
        ("fred", ["web", "0"], "'0' is no port: write 80, 8080:80 for another port here, or :80 for any that is free."),
        ("fred", ["web", "80", "81", "--stdio"], "--stdio takes one port."),
        ("fred", ["web", ":80", "--address", ","], "--address needs an address of this computer"),
        ("fred", ["web", ":80", "--address", "192.0.2.1"], "Port 0 cannot be listened on: 192.0.2.1: "),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    lab: Lab, user: str, arguments: list[str], sentence: str
) -> None:
    code, out, err = await run(lab, user, "port-forward", *arguments)
    assert (code, out) == (1, b"")
    assert sentence in err
    assert "Traceback" not in err


async def test_standard_input_and_output_can_be_connected(lab: Lab) -> None:
    sent = bytes(range(256)) * 2048
    assert await run(lab, "fred", "port-forward", "web", "22", "--stdio", given=sent) == (0, sent, "")
    lab.node.behave = break_off
    code, out, err = await run(lab, "fred", "port-forward", "web", "22", "--stdio")
    assert (code, out) == (1, b"half of it")
    assert err == "The guest of VirtualMachine default/web broke the connection off.\n"


async def test_a_connection_that_comes_while_no_operator_serves_waits_for_the_next(parts: Parts) -> None:
    lab = parts.lab
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with running(lab, "fred", "port-forward", "web", ":80", "--address", "127.0.0.1") as process:
        local = await listening(process)
        await point_to(lab, port)
        waiting = asyncio.create_task(exchange(local, b"patience"))
        await asyncio.sleep(1)  # long enough for the first tries to fail
        assert not waiting.done()
        await point_to(lab, lab.port)
        assert await waiting == b"patience"


async def point_to(lab: Lab, port: int) -> None:
    """Have the API server look for the operator at a port."""
    patch = f'{{"spec":{{"service":{{"port":{port}}}}}}}'
    name = "v1alpha1.subresources.virtfleet.io"
    await lab.kubectl("patch", "apiservice", name, "--type=merge", "-p", patch)


async def test_ssh_reaches_the_guest_and_knows_it_by_its_name(lab: Lab) -> None:
    lab.node.behave = greet
    lab.node.queries.clear()
    code, _, err = await run(lab, "fred", "ssh", "-p", "2222", "-l", "root", "web", "--", "true")
    assert code == 255
    assert lab.node.queries == [{"port": "2222"}]
    assert "kex_exchange_identification" in err or "Connection closed" in err


async def test_a_name_that_ssh_would_take_for_an_option_is_refused(lab: Lab) -> None:
    code, _, err = await run(lab, "fred", "ssh", "--", "-oProxyCommand=touch /tmp/x")
    assert (code, "names no machine" in err) == (1, True)
