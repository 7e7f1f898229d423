"""Console sessions through a real API server: what ends them, and what they may use."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import WSCloseCode

from virtfleet_operator.subresources import session

if TYPE_CHECKING:
    from conftest import Lab, Parts

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_SECONDS = 20.0


async def test_a_guest_that_ends_closes_the_console(lab: Lab) -> None:
    lab.node.behave = lab.node.say_and_close
    async with lab.console("carl", "web") as console:
        assert await console.receive_bytes(timeout=DEADLINE_SECONDS) == b"login: "
        code, reason = await lab.closing(console)
    assert code == WSCloseCode.OK
    assert "no more output" in reason


async def test_a_lost_node_tells_the_client_to_come_again(lab: Lab) -> None:
    lab.node.behave = lab.node.drop
    async with lab.console("carl", "web") as console:
        assert (await lab.closing(console))[0] == WSCloseCode.SERVICE_RESTART


async def test_deleting_the_machine_ends_the_session(lab: Lab) -> None:
    await lab.make_machine("doomed")
    async with lab.console("carl", "doomed") as console:
        await lab.kubectl("delete", "vm", "doomed")
        assert await lab.closing(console) == (WSCloseCode.OK, "VirtualMachine default/doomed was deleted.")


async def test_withdrawing_the_right_ends_the_session(lab: Lab) -> None:
    async with lab.console("rosa", "web") as console:
        await console.send_bytes(b"1")
        assert await console.receive_bytes(timeout=DEADLINE_SECONDS) == b"1"
        await lab.kubectl("delete", "clusterrolebinding", "rosa-console-users")
        assert await lab.closing(console) == (WSCloseCode.POLICY_VIOLATION, "The right to this console was withdrawn.")
    assert (await lab.refusal("rosa", "web"))["code"] == 403


async def test_a_viewer_that_does_not_read_stops_the_node_instead_of_filling_memory(lab: Lab) -> None:
    lab.node.behave = lab.node.flood
    async with lab.console("carl", "web") as console:
        last = -1

        async def stalls() -> bool:
            nonlocal last
            before, last = last, lab.node.sent
            await asyncio.sleep(0.5)  # a window to see whether anything moves, not a wait for something to happen
            return before == lab.node.sent

        await lab.eventually(stalls)
        assert 0 < lab.node.sent < 64 << 20
        for _ in range(100):
            await console.receive_bytes(timeout=DEADLINE_SECONDS)


async def test_a_frame_that_is_too_large_ends_the_session(lab: Lab) -> None:
    async with lab.console("carl", "web") as console:
        await console.send_bytes(bytes(1 << 20))
        code, _ = await lab.closing(console)
        assert code in {WSCloseCode.MESSAGE_TOO_BIG, WSCloseCode.ABNORMAL_CLOSURE}


async def test_sessions_are_logged_for_the_audit(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=session.logger.name)
    async with lab.console("carl", "web"):
        pass
    await lab.eventually(lambda: found(caplog))
    record = next(r for r in caplog.records if r.__dict__.get("action") == "CloseConsole")
    assert (record.__dict__["user"], record.__dict__["machine"]) == ("carl", "VirtualMachine default/web")
    assert record.__dict__["seconds"] >= 0


async def found(caplog: pytest.LogCaptureFixture) -> bool:
    return any(r.__dict__.get("action") == "CloseConsole" for r in caplog.records)


async def test_an_operator_that_stops_says_goodbye_and_the_next_one_serves(parts: Parts) -> None:
    lab = parts.lab
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = lab.front_proxy.issue("front-proxy-client", "front-proxy-client")
        tls = ssl.create_default_context(cafile=lab.serving_ca)
        tls.load_cert_chain(proxy.certificate, proxy.key)
        url = f"https://localhost:{listener.getsockname()[1]}{lab.path('web')}"
        headers = {"X-Remote-User": "carl"}
        async with aiohttp.ClientSession() as client:
            async with parts.serve(listener):
                console = await client.ws_connect(url, ssl=tls, headers=headers)
                await console.send_bytes(b"1")
                assert await console.receive_bytes(timeout=DEADLINE_SECONDS) == b"1"
                goodbye = asyncio.create_task(lab.closing(console))
            assert await goodbye == (WSCloseCode.SERVICE_RESTART, "The operator is stopping.")
            async with parts.serve(listener):
                await (await client.ws_connect(url, ssl=tls, headers=headers)).close()
