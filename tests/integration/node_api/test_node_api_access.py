"""Who may speak to a node: mutual TLS as it is, with the certificates that an attacker may have."""

import asyncio
import ssl
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp
import pytest

from identities import NODE, Identities, client_without_organization, server_of_operators
from polling import until
from virtfleet_node.api import server
from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.certificates import KeyPair, build_authority, operator_purpose, serving_purpose
from virtfleet_operator.enrolment.contexts import ClientTls, load_pair

if TYPE_CHECKING:
    from conftest import Peer, RunningNode

Choose = Callable[[Identities], KeyPair | None]


def self_signed(fleet: Identities) -> KeyPair:
    return build_authority(fleet.authority.clock())


def another_fleets(fleet: Identities) -> KeyPair:
    return Authority(build_authority(fleet.authority.clock())).issue(operator_purpose())


REFUSED_BY_TLS: dict[str, Choose] = {
    "no certificate": lambda _: None,
    "a certificate that signed itself": self_signed,
    "an operator of another fleet": another_fleets,
    "an operator whose day is over": lambda fleet: fleet.expired_operator(),
    "a stolen certificate of a node": lambda fleet: fleet.node(),
    "the operator's own server": lambda fleet: fleet.authority.issue(serving_purpose(("operator",))),
    "a server in the operators' organization": lambda fleet: fleet.authority.issue(server_of_operators()),
}


async def test_an_operator_is_answered(operator: "Peer") -> None:
    status, report = await operator.ask("GET", "/v1/node")
    assert (status, report["name"]) == (200, NODE)


async def test_the_operators_own_settings_reach_the_node_by_its_name(node: "RunningNode", fleet: Identities) -> None:
    async with node.session(ClientTls(fleet.authority)()) as session:
        async with session.get("/v1/node", server_hostname=NODE) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get("/v1/node", server_hostname="node-b", headers={"Connection": "close"})


@pytest.mark.parametrize("choose", REFUSED_BY_TLS.values(), ids=REFUSED_BY_TLS.keys())
async def test_whoever_is_no_operator_is_refused_by_tls(node: "RunningNode", fleet: Identities, choose: Choose) -> None:
    async with node.connect(choose(fleet)) as peer:
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, ssl.SSLError)):
            await peer.ask("GET", "/v1/node")
    assert node.metric("virtfleet_node_requests_total", method="GET", status="200") == 0


async def test_a_client_of_the_fleet_that_is_no_operator_is_refused(node: "RunningNode", fleet: Identities) -> None:
    async with node.connect(fleet.authority.issue(client_without_organization())) as peer:
        for method, path in (("GET", "/v1/node"), ("PUT", "/v1/machines/x"), ("GET", "/nowhere")):
            status, problem = await peer.ask(method, path, b"{}")
            assert (status, problem["reason"]) == (403, "Forbidden")
    assert node.metric("virtfleet_node_refusals_total", reason="Forbidden") == 3
    assert node.daemon.instructions == []


async def test_a_connection_does_not_outlive_its_certificate(node: "RunningNode", fleet: Identities) -> None:
    async with node.connect(fleet.short_operator(timedelta(seconds=2))) as peer:
        status, _ = await peer.ask("GET", "/v1/node")
        assert status == 200
        async with asyncio.timeout(10):
            while status == 200:
                status, _ = await peer.ask("GET", "/v1/node")
                await asyncio.sleep(0.05)
    assert status == 403


async def test_tls_older_than_1_3_is_refused(node: "RunningNode", fleet: Identities) -> None:
    context = fleet.client(fleet.operator())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with node.session(context) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/v1/node", server_hostname=NODE)


async def test_a_renewed_certificate_is_used_without_dropping_a_connection(
    node: "RunningNode", fleet: Identities
) -> None:
    context = fleet.client(fleet.operator())
    async with node.session(context) as session, session.get("/v1/watch", server_hostname=NODE) as stream:
        await stream.content.readline()
        first = await serial_number(node, context)
        load_pair(node.context, fleet.node())
        assert await serial_number(node, context) != first
        node.daemon.invent("0e2c1f54-8a0b-4c3d-9e6f-1a2b3c4d5e6f", "shop", "web")
        assert b"MachineChanged" in await stream.content.readline()


async def serial_number(node: "RunningNode", context: ssl.SSLContext) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=context, server_hostname=NODE)
    found: str = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return found


async def test_who_says_nothing_is_cut_off(node: "RunningNode", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HANDSHAKE_SECONDS", 0.05)
    await node.server.stop()
    node.port = await node.server.start("127.0.0.1", 0, node.context)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    await until(reader.at_eof)
    writer.close()
