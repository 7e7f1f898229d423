"""Connections to guests over real WebSockets: both ways, half-closed, bounded, broken, and peers that misbehave."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import WSCloseCode, WSMsgType

from identities import NODE, UID, client_without_organization
from polling import until

if TYPE_CHECKING:
    from conftest import Peer, RunningNode

PATH = f"/v1/machines/{UID}/portforward"
PORT = 22

Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def guest(node: "RunningNode", serve: Server) -> AsyncIterator[None]:
    """Have the guest's port 22 serve so."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        node.guest.ports[PORT] = server.sockets[0].getsockname()[1]
        yield


def connect(peer: "Peer", path: str = f"{PATH}?port={PORT}") -> Any:
    return peer.session.ws_connect(path, server_hostname=NODE, max_msg_size=1 << 20)


async def refused(peer: "Peer", path: str) -> tuple[int, dict[str, Any]]:
    """Return what a peer is told instead of the upgrade."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with peer.session.get(path, headers=headers, server_hostname=NODE) as response:
        return response.status, json.loads(await response.read())


async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.close()


async def test_a_side_that_has_ended_still_receives(operator: "Peer", node: "RunningNode") -> None:
    sent = bytes(range(256)) * 1024
    async with guest(node, answer_at_the_end), connect(operator) as ours:
        for start in range(0, len(sent), 65536):
            await ours.send_bytes(sent[start : start + 65536])
        assert node.metric("virtfleet_node_forwards") == 1
        await ours.send_bytes(b"")
        received = b""
        while data := await ours.receive_bytes(timeout=10):
            received += data
        assert received == sent
        message = await ours.receive(timeout=10)
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, WSCloseCode.OK, "Both sides are done.")
    await until(lambda: node.guest.open == 0)
    assert node.metric("virtfleet_node_forwards") == 0


async def test_a_guest_that_has_ended_still_receives(operator: "Peer", node: "RunningNode") -> None:
    heard = asyncio.Queue[bytes]()

    async def say_and_listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"over")
        writer.write_eof()
        await heard.put(await reader.read())
        writer.close()

    async with guest(node, say_and_listen), connect(operator) as ours:
        assert await ours.receive_bytes(timeout=10) == b"over"
        assert await ours.receive_bytes(timeout=10) == b""
        await ours.send_bytes(b"and out")
        await ours.send_bytes(b"")
        assert await heard.get() == b"and out"
        assert (await ours.receive(timeout=10)).data == WSCloseCode.OK


async def test_a_guest_that_breaks_off_is_told_of(operator: "Peer", node: "RunningNode") -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with guest(node, reset), connect(operator) as ours:
        message = await ours.receive(timeout=10)
        assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.INTERNAL_ERROR)
        assert message.extra.startswith("The guest broke the connection off: Connection reset by peer")


async def test_who_leaves_leaves_no_connection(operator: "Peer", node: "RunningNode") -> None:
    async with guest(node, answer_at_the_end):
        for ends_first in (False, True):
            ours = await connect(operator)
            assert node.guest.open == 1
            if ends_first:
                await ours.send_bytes(b"")
            await ours.close()
            await until(lambda: node.guest.open == 0)


@pytest.mark.parametrize("text", [True, False])
async def test_what_is_not_carried_ends_the_connection(operator: "Peer", node: "RunningNode", text: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    async with guest(node, answer_at_the_end), connect(operator) as ours:
        await (ours.send_str("text") if text else ours.send_bytes(bytes(65537)))
        assert (await ours.receive(timeout=10)).type is WSMsgType.CLOSE
        await until(lambda: node.guest.open == 0)


async def test_who_does_not_read_stops_the_guest_instead_of_filling_memory(
    operator: "Peer", node: "RunningNode"
) -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async with guest(node, flood), connect(operator) as ours:
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)  # a window to see whether anything moves
        assert 0 < sent < 64 << 20
        for _ in range(50):
            assert await ours.receive_bytes(timeout=10)


@pytest.mark.parametrize("query", ["", "?port=", "?port=0", "?port=65536", "?port=%D9%A1", "?port=22.0"])
async def test_a_port_must_be_one(operator: "Peer", node: "RunningNode", query: str) -> None:
    status, problem = await refused(operator, f"{PATH}{query}")
    assert (status, problem["message"]) == (400, "port must be a TCP port from 1 to 65535.")
    assert node.guest.open == 0


async def test_refusals_come_before_the_upgrade(operator: "Peer", node: "RunningNode") -> None:
    assert (await refused(operator, f"{PATH}?port=80"))[0] == 409
    assert (await refused(operator, f"/v1/machines/{UID[:-1]}0/portforward?port=22"))[0] == 404
    async with node.connect(node.fleet.authority.issue(client_without_organization())) as stranger:
        assert (await refused(stranger, f"{PATH}?port=22"))[0] == 403
