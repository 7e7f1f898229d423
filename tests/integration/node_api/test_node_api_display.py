"""Displays over real WebSockets: both ways, a connection for each viewer, bounds, ends, and peers that misbehave."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType

from identities import NODE, UID
from polling import until
from virtfleet_node.api.display import MOST_VIEWERS
from virtfleet_node.core.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from conftest import Peer, RunningNode

PATH = f"/v1/machines/{UID}/vnc"


def view(peer: "Peer") -> Any:
    return peer.session.ws_connect(PATH, server_hostname=NODE, max_msg_size=1 << 20)


async def receive_close(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Return code and reason of the end, after whatever comes before it."""
    while True:
        message = await socket.receive(timeout=10)
        if message.type is WSMsgType.CLOSE:
            return message.data, str(message.extra)
        assert message.type is WSMsgType.BINARY, message


async def refused(peer: "Peer", path: str = PATH) -> tuple[int, dict[str, Any]]:
    """Return what a viewer is told instead of the upgrade."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with peer.session.get(path, headers=headers, server_hostname=NODE) as response:
        return response.status, json.loads(await response.read())


async def test_bytes_go_both_ways_and_each_viewer_has_a_connection(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as first, view(operator) as second:
        one, two = node.daemon.displays.opened
        one.show(b"RFB 003.008\n")
        two.show(bytes(range(256)))
        assert await first.receive_bytes(timeout=10) == b"RFB 003.008\n"
        assert await second.receive_bytes(timeout=10) == bytes(range(256))
        await second.send_bytes(b"\x00\xff")
        await until(lambda: two.taken == b"\x00\xff")
        assert one.taken == b""
        assert node.metric("virtfleet_node_display_viewers") == 2
    await until(lambda: one.closed and two.closed)
    assert node.metric("virtfleet_node_display_viewers") == 0


@pytest.mark.parametrize("typing", [False, True])
async def test_viewers_are_told_that_the_guest_has_stopped(
    operator: "Peer", node: "RunningNode", *, typing: bool
) -> None:
    async with view(operator) as socket:
        node.daemon.displays.last.show(b"")
        if typing:
            await socket.send_bytes(b"x")
        assert await receive_close(socket) == (WSCloseCode.OK, "The guest has stopped.")
    await until(lambda: node.daemon.displays.last.closed)


async def test_viewers_are_told_that_the_daemon_stops(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        stopping = asyncio.create_task(node.server.stop())
        assert await receive_close(socket) == (WSCloseCode.GOING_AWAY, "The node's daemon is stopping.")
        await stopping
    assert node.daemon.displays.last.closed


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ConflictError("It runs without a display."), 409, "Conflict"),
        (UnavailableError("libvirtd does not answer."), 503, "Unavailable"),
    ],
)
async def test_a_refusal_comes_before_the_upgrade(
    operator: "Peer", node: "RunningNode", error: Exception, status: int, reason: str
) -> None:
    node.daemon.displays.refusal = error
    assert await refused(operator) == (status, {"reason": reason, "message": str(error)})
    assert node.metric("virtfleet_node_display_viewers") == 0


async def test_an_unknown_machine_has_no_display(operator: "Peer") -> None:
    assert (await refused(operator, PATH.replace("0e2c", "1e2c")))[0] == 404


async def test_a_request_that_is_no_websocket_leaves_nothing_open(operator: "Peer", node: "RunningNode") -> None:
    assert (await operator.ask("GET", PATH))[0] == 400
    await until(lambda: node.daemon.displays.last.closed)


async def test_only_so_many_may_look(operator: "Peer", node: "RunningNode") -> None:
    sockets = [await view(operator) for _ in range(MOST_VIEWERS)]
    status, problem = await refused(operator)
    assert (status, problem["message"]) == (409, "The display has 8 viewers already: close one of them.")
    await sockets[0].close()
    await until(lambda: node.metric("virtfleet_node_display_viewers") == MOST_VIEWERS - 1)
    sockets[0] = await view(operator)
    for socket in sockets:
        await socket.close()


async def test_a_viewer_that_reads_nothing_leaves_the_rest_with_qemu(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as slow:
        display = node.daemon.displays.last
        for _ in range(1024):
            display.show(bytes(65536))
        before = -1
        while before != display.reads:
            before = display.reads
            await asyncio.sleep(0.5)  # a window to see whether anything moves, not a wait for something to happen
        assert display.reads < 1024
        for _ in range(1024):
            assert len(await slow.receive_bytes(timeout=10)) == 65536


async def test_text_is_not_carried(operator: "Peer") -> None:
    async with view(operator) as socket:
        await socket.send_str("RFB")
        assert await receive_close(socket) == (WSCloseCode.UNSUPPORTED_DATA, "Only binary frames are carried.")


async def test_a_frame_of_64_kib_is_taken_and_a_larger_one_is_not(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        await socket.send_bytes(bytes(65536))
        await until(lambda: len(node.daemon.displays.last.taken) == 65536)
        await socket.send_bytes(bytes(65537))
        assert (await receive_close(socket))[0] == WSCloseCode.MESSAGE_TOO_BIG
    assert len(node.daemon.displays.last.taken) == 65536


async def test_a_viewer_that_vanishes_is_forgotten(operator: "Peer", node: "RunningNode") -> None:
    async with view(operator) as socket:
        socket._response.connection.transport.abort()
        await until(lambda: node.daemon.displays.last.closed)
    assert node.metric("virtfleet_node_display_viewers") == 0
