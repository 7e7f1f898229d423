"""Consoles over real WebSockets: both ways, several viewers, histories, ends, and peers that misbehave."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType

from identities import NODE, UID
from polling import until
from virtfleet_api.node_api import CONSOLE_HISTORY_BYTES
from virtfleet_node.core.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from conftest import Peer, RunningNode


def view(peer: "Peer", uid: str = UID, **query: str) -> Any:
    path = f"/v1/machines/{uid}/console"
    return peer.session.ws_connect(path, params=query, server_hostname=NODE, max_msg_size=65536)


async def receive(socket: aiohttp.ClientWebSocketResponse) -> bytes:
    return await socket.receive_bytes(timeout=10)


async def receive_close(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Return code and reason of the end, after whatever comes before it."""
    while True:
        message = await socket.receive(timeout=10)
        if message.type is WSMsgType.CLOSE:
            return message.data, str(message.extra)
        assert message.type is WSMsgType.BINARY, message


async def test_bytes_go_both_ways(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        node.daemon.consoles.last.say(b"\x00\xfflogin: ")
        assert await receive(socket) == b"\x00\xfflogin: "
        await socket.send_bytes(b"root\r")
        await until(lambda: node.daemon.consoles.last.typed == b"root\r")
    await until(lambda: node.daemon.consoles.last.closed)


async def test_two_viewers_share_the_console(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as first, view(operator) as second:
        node.daemon.consoles.last.say(b"hello")
        assert await receive(first) == await receive(second) == b"hello"
        await second.send_bytes(b"x")
        await until(lambda: node.daemon.consoles.last.typed == b"x")
        assert node.metric("virtfleet_node_console_viewers") == 2
    assert len(node.daemon.consoles.opened) == 1


async def test_the_history_comes_first(operator: "Peer", node: "RunningNode") -> None:
    node.daemon.log = b"booting\n" * 10_000
    async with view(operator, history=str(CONSOLE_HISTORY_BYTES)) as socket:
        node.daemon.consoles.last.say(b"login: ")
        seen = b""
        while not seen.endswith(b"login: "):
            seen += await receive(socket)
    assert seen == node.daemon.log[-CONSOLE_HISTORY_BYTES:] + b"login: "


async def test_the_history_alone_is_given_without_a_running_guest(operator: "Peer", node: "RunningNode") -> None:
    node.daemon.log = b"Power down.\n"
    node.daemon.consoles.refusal = ConflictError("The machine does not run.")
    async with view(operator, history="6", follow="false") as socket:
        assert await receive(socket) == b"down.\n"
        assert await receive_close(socket) == (WSCloseCode.OK, "End of the history.")


async def test_viewers_are_told_that_the_guest_has_stopped(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        node.daemon.consoles.last.say(b"Power down.")
        node.daemon.consoles.last.stop()
        assert await receive(socket) == b"Power down."
        assert await receive_close(socket) == (WSCloseCode.OK, "The guest has stopped.")


async def test_viewers_are_told_that_the_console_broke(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        node.daemon.consoles.last.break_down()
        code, reason = await receive_close(socket)
    assert code == WSCloseCode.INTERNAL_ERROR
    assert reason.startswith("The console broke")


async def test_viewers_are_told_that_the_daemon_stops(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        stopping = asyncio.create_task(node.server.stop())
        assert await receive_close(socket) == (WSCloseCode.GOING_AWAY, "The node's daemon is stopping.")
        await stopping
    assert node.daemon.consoles.last.closed


async def test_a_viewer_that_reads_nothing_holds_up_neither_guest_nor_others(
    operator: "Peer", node: "RunningNode"
) -> None:
    async with view(operator) as slow, view(operator) as quick:
        console = node.daemon.consoles.last
        seen = 0
        for number in range(1024):
            console.say(bytes([number % 256]) * 16384)
            while seen < (number + 1) * 16384:
                seen += len(await receive(quick))
        assert not slow.closed
    assert seen == 16 << 20


async def refused(peer: "Peer", path: str) -> tuple[int, dict[str, Any]]:
    """Return what a viewer is told instead of the upgrade."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with peer.session.get(path, headers=headers, server_hostname=NODE) as response:
        return response.status, json.loads(await response.read())


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ConflictError("The machine does not run."), 409, "Conflict"),
        (UnavailableError("libvirtd does not answer."), 503, "Unavailable"),
    ],
)
async def test_a_refusal_comes_before_the_upgrade(
    operator: "Peer", node: "RunningNode", error: Exception, status: int, reason: str
) -> None:
    node.daemon.consoles.refusal = error
    answer = await refused(operator, f"/v1/machines/{UID}/console")
    assert answer == (status, {"reason": reason, "message": str(error)})


async def test_an_unknown_machine_has_no_console(operator: "Peer") -> None:
    other = UID.replace("0e2c", "1e2c")
    assert (await refused(operator, f"/v1/machines/{other}/console"))[0] == 404


@pytest.mark.parametrize(
    "query", ["history=-1", "history=x", "history=65537", "history=99999999999999", "history=%D9%A1", "follow=maybe"]
)
async def test_a_strange_query_is_invalid(operator: "Peer", node: "RunningNode", query: str) -> None:
    status, problem = await refused(operator, f"/v1/machines/{UID}/console?{query}")
    assert (status, problem["reason"]) == (400, "Invalid")
    assert node.daemon.consoles.opened == []


async def test_a_log_that_cannot_be_read_lets_the_console_go(operator: "Peer", node: "RunningNode") -> None:
    node.daemon.log_failure = UnavailableError("virtlogd does not answer.")
    assert (await refused(operator, f"/v1/machines/{UID}/console?history=10"))[0] == 503
    assert node.daemon.consoles.last.closed


async def test_text_is_not_carried(operator: "Peer") -> None:
    async with view(operator) as socket:
        await socket.send_str("root")
        assert await receive_close(socket) == (WSCloseCode.UNSUPPORTED_DATA, "Only binary frames are carried.")


async def test_a_frame_of_64_kib_is_read_and_a_larger_one_is_not(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        await socket.send_bytes(bytes(65536))
        await until(lambda: len(node.daemon.consoles.last.typed) == 65536)
        await socket.send_bytes(bytes(65537))
        assert (await receive_close(socket))[0] == WSCloseCode.MESSAGE_TOO_BIG
    assert len(node.daemon.consoles.last.typed) == 65536


async def test_a_viewer_that_vanishes_is_forgotten(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        transport = socket._response.connection.transport
        transport.abort()
        await until(lambda: node.daemon.consoles.last.closed)
    assert node.metric("virtfleet_node_console_viewers") == 0


async def test_the_next_viewer_may_come_when_the_last_has_left(operator: "Peer", node: "RunningNode") -> None:
    for _ in range(5):
        async with view(operator) as socket:
            node.daemon.consoles.last.say(b"x")
            assert await receive(socket) == b"x"
        await until(lambda: node.daemon.consoles.last.closed)
