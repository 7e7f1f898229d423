"""Who gets to a display through a real API server, what the others are told, and what ends a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import WSCloseCode

from virtfleet_api.node_api import Problem, ProblemReason
from virtfleet_operator.subresources import session

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def display(lab: Lab, calm: None) -> None:  # noqa: ARG001 -- it comes first
    lab.subresource = "vnc"


@pytest.mark.parametrize("user", ["admin", "dora"])
async def test_bytes_go_both_ways(lab: Lab, user: str) -> None:
    async with lab.console(user, "web") as display:
        for data in (b"RFB 003.008\n", bytes(range(256)), bytes(65536)):
            await display.send_bytes(data)
            received = b""
            while len(received) < len(data):
                received += await display.receive_bytes(timeout=DEADLINE_SECONDS)
            assert received == data


async def test_the_right_to_the_console_is_not_the_right_to_the_display(lab: Lab) -> None:
    proxy = lab.front_proxy.issue("front-proxy-client", "front-proxy-client")
    for name in ("carl", "vera"):
        assert (await lab.refusal(name, "web"))["code"] == 403
        code, status = await lab.direct(proxy, "web", **{"X-Remote-User": name})
        assert code == 403
        assert status["message"].startswith(
            f'User "{name}" may not open the display of VirtualMachine default/web: it needs the verb get on'
            " virtualmachines/vnc in the API group subresources.virtfleet.io"
        )
    lab.subresource = "console"
    assert (await lab.refusal("dora", "web"))["code"] == 403


async def test_a_query_is_not_passed_on(lab: Lab) -> None:
    lab.node.queries.clear()
    async with lab.console("dora", "web", "?history=9&path=/etc/passwd"):
        assert lab.node.queries == [{}]


async def test_what_is_no_websocket_is_told_so(lab: Lab) -> None:
    proxy = lab.front_proxy.issue("front-proxy-client", "front-proxy-client")
    code, status = await lab.direct(proxy, "web", **{"X-Remote-User": "dora"})
    assert (code, status["message"]) == (400, "A display is a WebSocket; open it with `kubectl vm vnc`.")


async def test_a_machine_without_a_display(lab: Lab) -> None:
    lab.node.refusal = Problem(reason=ProblemReason.CONFLICT, message="It has none: add one.")
    status = await lab.refusal("dora", "web")
    assert status["code"] == 409
    assert status["message"] == "VirtualMachine default/web has no display now: node-a refuses: It has none: add one."


async def test_withdrawing_the_right_ends_the_session(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=session.logger.name)
    await lab.grant("dirk", "display-users")
    await lab.user("dirk")
    async with lab.console("dirk", "web") as display:
        await display.send_bytes(b"1")
        assert await display.receive_bytes(timeout=DEADLINE_SECONDS) == b"1"
        await lab.kubectl("delete", "clusterrolebinding", "dirk-display-users")
        assert await lab.closing(display) == (WSCloseCode.POLICY_VIOLATION, "The right to this display was withdrawn.")
    assert (await lab.refusal("dirk", "web"))["code"] == 403
    record = next(r for r in caplog.records if r.__dict__.get("action") == "CloseDisplay")
    assert (record.__dict__["user"], record.__dict__["machine"]) == ("dirk", "VirtualMachine default/web")


async def test_a_guest_that_ends_closes_the_display(lab: Lab) -> None:
    lab.node.behave = lab.node.say_and_close
    async with lab.console("dora", "web") as display:
        assert (await lab.closing(display))[0] == WSCloseCode.OK
