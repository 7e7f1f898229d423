"""Who gets to a guest's TCP ports through a real API server, what the others are told, and what ends a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import WSCloseCode, WSMsgType

from guest_ports import answer_at_the_end, break_off
from virtfleet_api.node_api import Problem, ProblemReason
from virtfleet_operator.subresources import session

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_SECONDS = 20.0
QUERY = "?port=22"


@pytest.fixture(autouse=True)
def forward(lab: Lab, calm: None) -> None:  # noqa: ARG001 -- it comes first
    lab.subresource = "portforward"


@pytest.mark.parametrize("user", ["admin", "fred"])
async def test_bytes_go_both_ways_and_each_side_ends_for_itself(lab: Lab, user: str) -> None:
    lab.node.queries.clear()
    lab.node.behave = answer_at_the_end
    async with lab.console(user, "web", f"{QUERY}&address=10.0.0.1") as guest:
        sent = bytes(range(256)) * 256
        await guest.send_bytes(sent)
        await guest.send_bytes(sent)
        await guest.send_bytes(b"")
        received = b""
        while data := await guest.receive_bytes(timeout=DEADLINE_SECONDS):
            received += data
        assert received == sent * 2
        message = await guest.receive(timeout=DEADLINE_SECONDS)
        assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.OK)
    assert lab.node.queries == [{"port": "22"}], "nothing but the port is passed on"


async def test_other_rights_are_of_no_use(lab: Lab) -> None:
    proxy = lab.front_proxy.issue("front-proxy-client", "front-proxy-client")
    for name in ("carl", "dora", "vera"):
        assert (await lab.refusal(name, "web", QUERY))["code"] == 403
        code, status = await lab.direct(proxy, "web", **{"X-Remote-User": name})
        assert code == 403
        assert status["message"].startswith(
            f'User "{name}" may not open the TCP port of VirtualMachine default/web: it needs the verb get on'
            " virtualmachines/portforward in the API group subresources.virtfleet.io"
        )
    for other in ("console", "vnc"):
        lab.subresource = other
        assert (await lab.refusal("fred", "web"))["code"] == 403


@pytest.mark.parametrize("query", ["", "?port=0", "?port=65536", "?port=ssh", "?port=-1"])
async def test_a_port_must_be_one(lab: Lab, query: str) -> None:
    status = await lab.refusal("fred", "web", query)
    assert (status["code"], status["message"]) == (400, "port must be a TCP port from 1 to 65535.")


async def test_what_the_node_says_is_passed_on(lab: Lab) -> None:
    lab.node.refusal = Problem(reason=ProblemReason.CONFLICT, message="The guest refuses connections.")
    status = await lab.refusal("fred", "web", QUERY)
    assert (status["code"], status["message"]) == (
        409,
        "VirtualMachine default/web cannot be connected to: node-a refuses: The guest refuses connections.",
    )


async def test_a_guest_that_breaks_off_is_no_good_end(lab: Lab) -> None:
    lab.node.behave = break_off
    async with lab.console("fred", "web", QUERY) as guest:
        assert await lab.closing(guest) == (
            WSCloseCode.INTERNAL_ERROR,
            "The guest of VirtualMachine default/web broke the connection off.",
        )


async def test_withdrawing_the_right_ends_the_connection(lab: Lab) -> None:
    await lab.kubectl("create", "clusterrolebinding", "fay", "--clusterrole=forward-users", "--user=fay")
    await lab.user("fay")
    async with lab.console("fay", "web", QUERY) as guest:
        await guest.send_bytes(b"1")
        assert await guest.receive_bytes(timeout=DEADLINE_SECONDS) == b"1"
        await lab.kubectl("delete", "clusterrolebinding", "fay")
        assert await lab.closing(guest) == (WSCloseCode.POLICY_VIOLATION, "The right to this TCP port was withdrawn.")
    assert (await lab.refusal("fay", "web", QUERY))["code"] == 403


async def test_the_audit_names_user_machine_and_port(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=session.logger.name)
    async with lab.console("fred", "web", QUERY):
        pass

    async def closed() -> bool:
        return any(record.__dict__.get("action") == "CloseForward" for record in caplog.records)

    await lab.eventually(closed)
    for action in ("OpenForward", "CloseForward"):
        (record,) = [record for record in caplog.records if record.__dict__.get("action") == action]
        said = record.__dict__
        assert (said["user"], said["machine"], said["port"]) == ("fred", "VirtualMachine default/web", "22")


async def test_a_user_that_does_not_read_stops_the_node_instead_of_filling_memory(lab: Lab) -> None:
    lab.node.behave = lab.node.flood
    async with lab.console("fred", "web", QUERY) as guest:
        last = -1

        async def stalls() -> bool:
            nonlocal last
            before, last = last, lab.node.sent
            await asyncio.sleep(0.5)  # a window to see whether anything moves, not a wait for something to happen
            return before == lab.node.sent

        await lab.eventually(stalls)
        assert 0 < lab.node.sent < 64 << 20
        for _ in range(100):
            await guest.receive_bytes(timeout=DEADLINE_SECONDS)
