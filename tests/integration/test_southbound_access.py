"""A daemon's enrolment at a fleet with a network engine, and at one that gets it later. Server and client are real."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from identities import NODE, Identities
from memory_cluster import MemoryCluster
from polling import until
from virtfleet_node.api.identity import Identity
from virtfleet_node.config import Config
from virtfleet_operator.enrolment.contexts import ServingPair
from virtfleet_operator.enrolment.ovn_trust import Southbound, load_ovn_authorities
from virtfleet_operator.enrolment.server import EnrolmentServer
from virtfleet_operator.enrolment.service import Enrolment

REMOTE = "ssl:192.0.2.1:6642"
TOKEN = "0123456789abcdef0123456789abcdef"


@asynccontextmanager
async def serving(cluster: MemoryCluster, fleet: Identities, southbound: Southbound | None) -> AsyncIterator[str]:
    enrolment = Enrolment(
        cluster, fleet.authority, cluster.ensure_node, namespace=cluster.namespace, southbound=southbound
    )
    server = EnrolmentServer(enrolment, ServingPair(fleet.authority, ("127.0.0.1",)), CollectorRegistry())
    port = await server.start("127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        await server.stop()


def configure(folder: Path, fleet: Identities, url: str) -> Config:
    (folder / "ca.crt").write_text(fleet.authority.ca_pem)
    return Config.model_validate(
        {
            "nodeName": NODE,
            "listen": {"host": "127.0.0.1", "port": 8444},
            "advertise": "127.0.0.1:8444",
            "stateDirectory": str(folder / "state"),
            "pools": [{"name": "default", "path": str(folder / "pool")}],
            "enrolment": {"url": url, "caFile": str(folder / "ca.crt"), "tokenFile": str(folder / "token")},
        }
    )


@pytest.fixture
async def cluster(tmp_path: Path) -> MemoryCluster:
    made = MemoryCluster()
    made.add_join_token("join", TOKEN, NODE)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "state").mkdir()
    return made


async def test_the_daemon_keeps_what_it_is_given(cluster: MemoryCluster, tmp_path: Path) -> None:
    fleet = Identities()
    authorities = await load_ovn_authorities(cluster)
    async with serving(cluster, fleet, Southbound(authorities.southbound, REMOTE)) as url:
        identity = Identity(configure(tmp_path, fleet, url))
        await identity.ensure()
        files = identity.southbound()
    assert files is not None
    assert files.remote == REMOTE
    assert files.ca.read_text() == authorities.southbound.ca_pem
    assert {path.stat().st_mode & 0o777 for path in (files.key, files.certificate, files.ca)} == {0o600}


async def test_a_fleet_that_gets_a_network_engine_later_is_asked_at_the_daemons_next_start(
    cluster: MemoryCluster, tmp_path: Path
) -> None:
    fleet = Identities()
    async with serving(cluster, fleet, None) as url:
        first = Identity(configure(tmp_path, fleet, url))
        await first.ensure()
        assert first.southbound() is None
    authorities = await load_ovn_authorities(cluster)
    async with serving(cluster, fleet, Southbound(authorities.southbound, REMOTE)) as url:
        again = Identity(configure(tmp_path, fleet, url))
        await again.ensure()
        assert again.southbound() is None  # a start does not wait for the operator
        keeping = asyncio.create_task(again.keep())
        await until(again.southbound)
        keeping.cancel()
