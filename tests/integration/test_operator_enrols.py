"""Daemons prove who they are to a real operator, which asks a real API server."""

import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from applicants import build_request
from operator_rig import SYSTEM, Rig, rig
from virtfleet_api.enrol import ENROL_PATH, EnrolReply
from virtfleet_api.names import CA_NAME, JOIN_TOKEN_TYPE, NODE_AUDIENCE
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_operator.enrolment.certificates import generate_key
from virtfleet_operator.enrolment.proofs import NODE_SERVICE_ACCOUNT
from virtfleet_operator.kube.paths import CONFIG_MAPS, PODS, SECRETS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCOUNTS = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts"
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("enrolling")) as built:
        await built.start_operator()
        await built.client.create(ACCOUNTS, {"metadata": {"name": NODE_SERVICE_ACCOUNT}})
        yield built


async def enrol(fleet: Rig, **request: Any) -> tuple[int, dict[str, Any]]:
    """Ask for a certificate and return status and body."""
    ca_pem = (await fleet.client.get(CONFIG_MAPS.object(SYSTEM, CA_NAME)))["data"]["ca.crt"]
    url = f"https://127.0.0.1:{fleet.operators['one'].enrolment_port}{ENROL_PATH}"
    body = build_request(**request).model_dump_json(exclude_none=True)
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, ssl=ssl.create_default_context(cadata=ca_pem)) as response,
    ):
        return response.status, await response.json()


async def make_pod(fleet: Rig, name: str, node: str, account: str = NODE_SERVICE_ACCOUNT) -> str:
    """Create a pod of the daemon on a node and return its UID."""
    spec = {"serviceAccountName": account, "nodeName": node, "containers": [{"name": "daemon", "image": "none"}]}
    body = {"metadata": {"name": name}, "spec": spec}

    async def accepted() -> bool:  # the account's token is made by a controller, and pods are refused until then
        try:
            await fleet.client.create(PODS.collection(SYSTEM), body)
        except Exception as error:
            if "service account" in str(error) or "no API token" in str(error):
                return False
            raise
        return True

    await fleet.eventually(accepted, f"pod {name} is accepted")
    return str((await fleet.client.get(PODS.object(SYSTEM, name)))["metadata"]["uid"])


async def ask_token(fleet: Rig, pod: tuple[str, str] | None, audience: str = NODE_AUDIENCE) -> str:
    """Return a token as the kubelet projects it, bound to a pod (name and UID) or to nothing."""
    spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 600}
    if pod:
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod[0], "uid": pod[1]}
    answer = await fleet.client.create(f"{ACCOUNTS}/{NODE_SERVICE_ACCOUNT}/token", {"spec": spec})
    return str(answer["status"]["token"])


async def test_a_pod_of_the_daemon_is_taken_in_for_its_own_node_alone(fleet: Rig) -> None:
    token = await ask_token(fleet, ("daemon", await make_pod(fleet, "daemon", "metal-1")))
    status, answer = await enrol(fleet, node_name="metal-2", service_account_token=token)
    assert status == 403
    assert "does not prove" in answer["message"]
    assert await fleet.get("VMNode", "metal-2") is None
    status, answer = await enrol(fleet, node_name="metal-1", service_account_token=token)
    assert status == 200, answer
    assert "BEGIN CERTIFICATE" in EnrolReply.model_validate(answer).certificate_pem
    node = await fleet.get("VMNode", "metal-1")
    assert node
    assert node["status"]["address"] == "10.0.0.1:8444"


async def test_other_tokens_of_the_account_prove_nothing(fleet: Rig) -> None:
    pod = ("other", await make_pod(fleet, "other", "metal-3"))
    for token in (await ask_token(fleet, None), await ask_token(fleet, pod, "somebody-else"), "no.token.atall"):
        assert (await enrol(fleet, node_name="metal-3", service_account_token=token))[0] == 403
    token = await ask_token(fleet, pod)
    await fleet.client.delete(PODS.object(SYSTEM, pod[0]) + "?gracePeriodSeconds=0")

    async def refused() -> bool:  # the API server remembers a token's review for some seconds
        return (await enrol(fleet, node_name="metal-3", service_account_token=token))[0] == 403

    await fleet.eventually(refused, "the token of a deleted pod is refused")
    assert await fleet.get("VMNode", "metal-3") is None


async def test_a_join_token_is_used_up_by_its_node(fleet: Rig) -> None:
    secret = {"metadata": {"name": "join-metal-4"}, "type": JOIN_TOKEN_TYPE}
    secret["stringData"] = {"token": TOKEN, "nodeName": "metal-4"}
    await fleet.client.create(SECRETS.collection(SYSTEM), secret)
    assert (await enrol(fleet, node_name="metal-5", join_token=TOKEN))[0] == 403
    key = generate_key()
    assert (await enrol(fleet, key=key, node_name="metal-4", join_token=TOKEN))[0] == 200
    page = await fleet.client.get(SECRETS.collection(SYSTEM))
    assert "join-metal-4" not in [item["metadata"]["name"] for item in page["items"]]
    again, _ = await enrol(fleet, key=key, node_name="metal-4", join_token=TOKEN)
    assert again == 200, "the answer may have been lost: the same key is answered again"
    assert (await enrol(fleet, node_name="metal-4", join_token=TOKEN))[0] == 403
