"""Who gets to a console through a real API server, and what the others are told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from virtfleet_api.node_api import Problem, ProblemReason
from virtfleet_dev.pki import LocalAuthority

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUP = "/apis/subresources.virtfleet.io/v1alpha1"
DEADLINE_SECONDS = 20.0


async def test_discovery_through_the_api_server(lab: Lab) -> None:
    resources = json.loads(await lab.kubectl("get", "--raw", GROUP))["resources"]
    assert [(r["name"], r["verbs"]) for r in resources] == [
        ("virtualmachines/console", ["get"]),
        ("virtualmachines/ports", ["get"]),
        ("virtualmachines/vnc", ["get"]),
        ("virtualmachines/portforward", ["get"]),
        ("vmimages/upload", ["get", "update"]),
    ]
    listed = await lab.kubectl("api-versions")
    assert "subresources.virtfleet.io/v1alpha1" in listed


@pytest.mark.parametrize("user", ["admin", "carl"])
async def test_bytes_go_both_ways(lab: Lab, user: str) -> None:
    async with lab.console(user, "web") as console:
        for data in (b"uname -a\r", bytes(range(256)), bytes(65536)):
            await console.send_bytes(data)
            received = b""
            while len(received) < len(data):
                received += await console.receive_bytes(timeout=DEADLINE_SECONDS)
            assert received == data
        await console.send_str("text is bytes too")
        assert await console.receive_bytes(timeout=DEADLINE_SECONDS) == b"text is bytes too"


async def test_history_is_asked_of_the_node(lab: Lab) -> None:
    lab.node.queries.clear()
    async with lab.console("carl", "web", "?history=4096&follow=false&path=/etc/passwd"):
        assert lab.node.queries == [{"history": "4096", "follow": "false"}]


@pytest.mark.parametrize("query", ["?history=65537", "?history=-1", "?history=x", "?follow=maybe"])
async def test_an_odd_query_is_refused_with_a_sentence(lab: Lab, query: str) -> None:
    status = await lab.refusal("carl", "web", query)
    assert status["code"] == 400
    assert "history is a number of bytes from 0 to 65536" in status["message"]


async def test_a_viewer_of_machines_has_no_console(lab: Lab) -> None:
    status = await lab.refusal("vera", "web")
    assert status["code"] == 403


async def test_a_forged_user_header_is_of_no_use(lab: Lab) -> None:
    forged = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}
    assert (await lab.refusal("vera", "web", **forged))["code"] == 403


async def test_the_right_is_checked_here_too(lab: Lab) -> None:
    proxy = lab.front_proxy.issue("front-proxy-client", "front-proxy-client")
    code, status = await lab.direct(proxy, "web", **{"X-Remote-User": "vera"})
    assert code == 403
    assert 'User "vera" may not open the console of VirtualMachine default/web' in status["message"]
    code, status = await lab.direct(proxy, "no-such-machine", **{"X-Remote-User": "vera"})
    assert code == 403, "who lacks the right does not learn what exists"
    code, status = await lab.direct(proxy, "web", **{"X-Remote-User": "carl"})
    assert (code, status["message"]) == (400, "A console is a WebSocket; open it with `kubectl vm console`.")


async def test_groups_count_for_the_right(lab: Lab) -> None:
    proxy = lab.front_proxy.issue("front-proxy-client", "front-proxy-client")
    code, _ = await lab.direct(proxy, "web", **{"X-Remote-User": "anybody", "X-Remote-Group": "system:masters"})
    assert code == 400


async def test_without_a_user_nothing_is_served(lab: Lab) -> None:
    proxy = lab.front_proxy.issue("front-proxy-client", "front-proxy-client")
    code, status = await lab.direct(proxy, "web")
    assert (code, status["message"]) == (401, "The API server names no user in its request.")


async def test_a_stranger_is_refused_by_tls(lab: Lab) -> None:
    headers = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}
    admin = LocalAuthority(lab.plane.directory / "pki", "ca").issue("user-admin", "admin", "system:masters")
    for pair in (None, admin):
        with pytest.raises(aiohttp.ClientError):
            await lab.direct(pair, "web", **headers)


async def test_another_name_of_the_proxy_authority_is_refused(lab: Lab) -> None:
    pair = LocalAuthority(lab.plane.directory / "pki", "front-proxy-ca").issue("front-proxy-other", "other")
    code, status = await lab.direct(pair, "web", **{"X-Remote-User": "admin", "X-Remote-Group": "system:masters"})
    assert code == 401
    assert status["message"].startswith("Only the API server may call this")


async def test_what_does_not_exist(lab: Lab) -> None:
    status = await lab.refusal("carl", "absent")
    assert (status["code"], status["message"]) == (404, "VirtualMachine default/absent does not exist.")


async def test_a_machine_without_a_node(lab: Lab) -> None:
    await lab.make_machine("unplaced", node=None)
    status = await lab.refusal("carl", "unplaced")
    assert status["code"] == 409
    assert "is not on a node yet" in status["message"]


async def test_a_machine_whose_node_is_away(lab: Lab) -> None:
    await lab.make_machine("stranded", node="node-z")
    status = await lab.refusal("carl", "stranded")
    assert (status["code"], status["reason"]) == (503, "ServiceUnavailable")
    assert status["message"].startswith("The node of VirtualMachine default/stranded cannot be reached: node-z")


async def test_a_machine_that_is_off(lab: Lab) -> None:
    lab.node.refusal = Problem(reason=ProblemReason.CONFLICT, message="The machine is not running.")
    status = await lab.refusal("carl", "web")
    assert status["code"] == 409
    assert status["message"].endswith("The machine is not running.")
