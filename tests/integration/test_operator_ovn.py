"""A real operator keeps OVN's authorities in a real API server, and leaves no key behind."""

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509

from applicants import build_request
from operator_rig import SYSTEM, Operator, Rig, rig
from virtfleet_api.names import JOIN_TOKEN_TYPE, OVN_NAME, OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME, OVN_TYPE
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.enrolment import EnrolmentCluster
from virtfleet_operator.kube.paths import SECRETS

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVING = (OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME)
OVN = {"northbound": "ssl:192.0.2.1:6641", "southbound": "ssl:192.0.2.1:6642,ssl:192.0.2.2:6642"}
NAMES = ["192.0.2.1", "192.0.2.2"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("ovn")) as built:
        await built.start_operator(ovn=OVN)
        yield built


def folder_of(operator: Operator) -> Path:
    """Return the folder that the process has its northbound certificate in: it holds a lock on it."""
    descriptors = Path(f"/proc/{operator.process.pid}/fd")
    (found,) = {path for path in (one.readlink() for one in descriptors.iterdir()) if "northbound-" in path.name}
    return found


async def read(client: KubeClient, name: str) -> dict[str, bytes]:
    found = await EnrolmentCluster(client, SYSTEM).read_secret(name)
    assert found is not None
    return found


def names_in(data: dict[str, bytes]) -> list[str]:
    certificate = x509.load_pem_x509_certificate(data["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


async def are_there(fleet: Rig) -> bool:
    """Tell whether both have certificates, and not those of another operator's databases."""
    found = [await EnrolmentCluster(fleet.client, SYSTEM).read_secret(name) for name in SERVING]
    return all(data is not None and names_in(data) == NAMES for data in found)


async def test_the_databases_find_what_they_serve_with(fleet: Rig) -> None:
    await fleet.eventually(lambda: are_there(fleet), "both databases have certificates")
    secret = await fleet.client.get(SECRETS.object(SYSTEM, OVN_NAME))
    assert secret["type"] == OVN_TYPE
    authorities = await read(fleet.client, OVN_NAME)
    for name, database in ((OVN_NORTHBOUND_TLS_NAME, "northbound"), (OVN_SOUTHBOUND_TLS_NAME, "southbound")):
        data = await read(fleet.client, name)
        assert data["ca.crt"] == authorities[f"{database}.crt"]
        certificate = x509.load_pem_x509_certificate(data["tls.crt"])
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(data["ca.crt"]))
        assert names_in(data) == NAMES


async def test_a_node_is_told_of_the_southbound_database(fleet: Rig) -> None:
    token = secrets.token_hex(16)
    secret = {"metadata": {"name": "join-chassis"}, "type": JOIN_TOKEN_TYPE}
    await fleet.client.create(
        SECRETS.collection(SYSTEM), {**secret, "stringData": {"token": token, "nodeName": "chassis"}}
    )
    reply = await fleet.enrol(build_request(node_name="chassis", join_token=token))
    assert reply.southbound is not None
    assert reply.southbound.remote == OVN["southbound"]
    certificate = x509.load_pem_x509_certificate(reply.southbound.certificate_pem.encode())
    authorities = await read(fleet.client, OVN_NAME)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authorities["southbound.crt"]))
    assert certificate.subject.rfc4514_string() == "CN=chassis"


async def test_a_killed_operators_files_are_removed_by_its_successor_which_keeps_the_authorities(fleet: Rig) -> None:
    before = await read(fleet.client, OVN_NAME)
    folder = folder_of(fleet.operators["one"])
    assert (folder / "tls.key").stat().st_mode & 0o777 == 0o600
    assert folder.parent.stat().st_uid == os.getuid()
    await fleet.kill_operator("one")
    assert folder.exists()
    two = await fleet.start_operator("two", ovn={**OVN, "serverNames": ["ovn.example"]})
    assert not folder.exists()
    assert await read(fleet.client, OVN_NAME) == before

    async def renamed() -> bool:
        return all([names_in(await read(fleet.client, name)) == ["ovn.example"] for name in SERVING])

    await fleet.eventually(renamed, "the databases' certificates have the name that is configured now")
    folder = folder_of(two)
    await fleet.stop_operator("two")
    assert not folder.exists()
