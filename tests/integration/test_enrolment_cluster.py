"""One contract for the API server as enrolment sees it: the one in memory, which unit tests use, and the real one."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from memory_cluster import MemoryCluster
from virtfleet_api.names import API_VERSION, CA_NAME, JOIN_TOKEN_TYPE, NODE_AUDIENCE
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import read_connection
from virtfleet_operator.kube.enrolment import EnrolmentCluster
from virtfleet_operator.kube.paths import CONFIG_MAPS, OUR_PATHS, SECRETS

SPACE = "contract"
TOKEN = "0123456789abcdef"


class RealCluster(EnrolmentCluster):
    """The real one, with what an administrator does to it."""

    def __init__(self, client: KubeClient) -> None:
        super().__init__(client, SPACE)
        self.client = client

    async def add_join_token(self, name: str) -> None:
        body = {"metadata": {"name": name}, "type": JOIN_TOKEN_TYPE, "stringData": {"token": TOKEN, "nodeName": "n"}}
        await self.client.create(SECRETS.collection(SPACE), body)

    async def add_node(self, name: str) -> None:
        body = {"apiVersion": API_VERSION, "kind": "VMNode", "metadata": {"name": name}, "spec": {}}
        await self.client.create(OUR_PATHS["VMNode"].collection(), body)

    async def count_publications(self) -> int:
        found = await self.client.get(CONFIG_MAPS.object(SPACE, CA_NAME))
        return int(found["metadata"]["resourceVersion"])


class FakeCluster(MemoryCluster):
    """The one in memory, in the same words."""

    async def add_join_token(self, name: str) -> None:  # type: ignore[override]
        self.tokens[name] = {"token": TOKEN.encode(), "nodeName": b"n"}

    async def add_node(self, name: str) -> None:
        await self.ensure_node(name, "", {})

    async def count_publications(self) -> int:
        return self.publications


@pytest_asyncio.fixture(params=["memory", "real"])
async def cluster(request: pytest.FixtureRequest, control_plane: ControlPlane) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield FakeCluster()
        return
    async with KubeClient(await read_connection(control_plane.kubeconfig)) as client:
        control_plane.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        yield RealCluster(client)
        control_plane.kubectl.run("delete", "namespace", SPACE)
        control_plane.kubectl.run("delete", "vmnode", "contract", "--ignore-not-found")


async def test_the_first_authority_stays(cluster: Any) -> None:
    assert await cluster.read_authority() is None
    assert await cluster.create_authority({"tls.crt": b"one", "tls.key": b"\x00\xff"})
    assert not await cluster.create_authority({"tls.crt": b"two", "tls.key": b"2"})
    assert await cluster.read_authority() == {"tls.crt": b"one", "tls.key": b"\x00\xff"}


async def test_a_secret_is_made_once_and_then_replaced_value_by_value(cluster: Any) -> None:
    name = "virtfleet-ovn-northbound-tls"
    assert await cluster.read_secret(name) is None
    assert await cluster.create_secret(
        name, "kubernetes.io/tls", {"tls.crt": b"one", "tls.key": b"\x00", "ca.crt": b"c"}
    )
    assert not await cluster.create_secret(name, "kubernetes.io/tls", {"tls.crt": b"two", "tls.key": b"2"})
    await cluster.write_secret(name, {"tls.crt": b"three", "tls.key": b"\xff"})
    assert await cluster.read_secret(name) == {"tls.crt": b"three", "tls.key": b"\xff", "ca.crt": b"c"}


async def test_the_public_part_is_written_when_it_differs(cluster: Any) -> None:
    await cluster.publish_authority("one")
    first = await cluster.count_publications()
    await cluster.publish_authority("one")
    assert await cluster.count_publications() == first
    await cluster.publish_authority("two")
    assert await cluster.count_publications() > first


async def test_join_tokens_are_found_and_deleted_once(cluster: Any) -> None:
    await cluster.create_authority({"tls.crt": b"no join token", "tls.key": b"1"})
    await cluster.add_join_token("join")
    assert await cluster.read_join_tokens() == {"join": {"token": TOKEN.encode(), "nodeName": b"n"}}
    assert await cluster.delete_join_token("join")
    assert not await cluster.delete_join_token("join")
    assert await cluster.read_join_tokens() == {}


async def test_nonsense_is_nobodys_token(cluster: Any) -> None:
    assert (await cluster.review_token("nonsense", NODE_AUDIENCE)).get("authenticated") is not True


async def test_what_is_not_there_is_not_found(cluster: Any) -> None:
    assert await cluster.read_pod(SPACE, "nobody") is None
    assert not await cluster.node_exists("contract")
    await cluster.add_node("contract")
    assert await cluster.node_exists("contract")
