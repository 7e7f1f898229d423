import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from applicants import TOKEN, build_request
from identities import NODE, Identities
from memory_cluster import MemoryCluster
from virtfleet_api.names import OVN_NAME, OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME, OVN_TYPE
from virtfleet_operator.enrolment.authority import load_authority
from virtfleet_operator.enrolment.certificates import build_authority
from virtfleet_operator.enrolment.errors import AuthorityError
from virtfleet_operator.enrolment.northbound_files import NorthboundAccess
from virtfleet_operator.enrolment.ovn_trust import (
    OvnAuthorities,
    Southbound,
    keep_database_certificates,
    load_ovn_authorities,
)
from virtfleet_operator.enrolment.service import Enrolment

NAMES = ("10.0.0.9", "ovn.example", "fd00::0009")
REMOTE = "ssl:10.0.0.9:6642"
SERVING = (OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def usage(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


async def test_the_three_authorities_are_made_once_and_differ(cluster: MemoryCluster) -> None:
    fleet = await load_authority(cluster)
    first, second = await load_ovn_authorities(cluster), await load_ovn_authorities(cluster)
    assert first.northbound.ca_pem == second.northbound.ca_pem
    assert first.southbound.ca_pem == second.southbound.ca_pem
    assert len({fleet.ca_pem, first.northbound.ca_pem, first.southbound.ca_pem}) == 3
    assert cluster.kinds[OVN_NAME] == OVN_TYPE


async def test_operators_that_start_together_share_the_authorities() -> None:
    class Slow(MemoryCluster):
        async def read_secret(self, name: str) -> object:  # type: ignore[override]
            found = await super().read_secret(name)
            await asyncio.sleep(0)
            return found

    slow = Slow()
    loaded = await asyncio.gather(*(load_ovn_authorities(slow) for _ in range(5)))
    assert len({(both.northbound.ca_pem, both.southbound.ca_pem) for both in loaded}) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"northbound.crt": None}, "no key 'northbound.crt'"),
        ({"southbound.key": None}, "no key 'southbound.key'"),
        ({"southbound.crt": b"x"}, r"\(southbound.crt, southbound.key\) does not hold"),
        ({"northbound.key": build_authority(datetime.now(UTC)).key}, "the key is not the key of the certificate"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_never_replaced(
    cluster: MemoryCluster, change: dict[str, bytes | None], said: str
) -> None:
    await load_ovn_authorities(cluster)
    data = {key: value for key, value in ({**cluster.secrets[OVN_NAME], **change}).items() if value is not None}
    cluster.secrets[OVN_NAME] = data
    with pytest.raises(AuthorityError, match=said):
        await load_ovn_authorities(cluster)
    assert cluster.secrets[OVN_NAME] == data


async def test_each_database_serves_with_a_certificate_of_its_own_authority(cluster: MemoryCluster) -> None:
    authorities = await load_ovn_authorities(cluster)
    await keep_database_certificates(cluster, authorities, NAMES)
    for name, authority in zip(SERVING, (authorities.northbound, authorities.southbound), strict=True):
        data = cluster.secrets[name]
        certificate = x509.load_pem_x509_certificate(data["tls.crt"])
        key = serialization.load_pem_private_key(data["tls.key"], None)
        assert cluster.kinds[name] == "kubernetes.io/tls"
        assert data["ca.crt"].decode() == authority.ca_pem
        assert authority.has_issued(certificate)
        assert certificate.public_key() == key.public_key()
        assert usage(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize(("hours", "renewed"), [(0, 0), (15.8, 0), (16.1, 2), (40, 2)])
async def test_what_the_databases_serve_with_is_renewed_before_it_expires(
    cluster: MemoryCluster, clock: Clock, hours: float, renewed: int
) -> None:
    authorities = await load_ovn_authorities(cluster, clock)
    await keep_database_certificates(cluster, authorities, NAMES)
    before = dict(cluster.secrets)
    clock.now += timedelta(hours=hours)
    await keep_database_certificates(cluster, authorities, NAMES)
    assert sum(cluster.secrets[name] != before[name] for name in SERVING) == renewed


@pytest.mark.parametrize("wrong", ["names", "key", "authority", "nonsense"])
async def test_what_does_not_serve_is_replaced(cluster: MemoryCluster, wrong: str) -> None:
    authorities = await load_ovn_authorities(cluster)
    await keep_database_certificates(cluster, authorities, ("10.0.0.1",) if wrong == "names" else NAMES)
    if wrong == "key":
        cluster.secrets[SERVING[0]] = {**cluster.secrets[SERVING[0]], "tls.key": build_authority(datetime.now(UTC)).key}
    if wrong == "authority":
        cluster.secrets[SERVING[0]] = cluster.secrets[SERVING[1]]
    if wrong == "nonsense":
        cluster.secrets[SERVING[0]] = {"tls.crt": b"x"}
    before = cluster.secrets[SERVING[0]]
    await keep_database_certificates(cluster, authorities, NAMES)
    after = cluster.secrets[SERVING[0]]
    assert after["tls.crt"] != before["tls.crt"]
    assert after["ca.crt"].decode() == authorities.northbound.ca_pem
    await keep_database_certificates(cluster, authorities, NAMES)
    assert cluster.secrets[SERVING[0]] == after


async def test_an_enrolled_node_is_given_its_access_to_the_southbound_database(
    cluster: MemoryCluster, fleet: Identities
) -> None:
    authorities = await load_ovn_authorities(cluster)
    southbound = Southbound(authorities.southbound, REMOTE)
    service = Enrolment(
        cluster, fleet.authority, cluster.ensure_node, namespace=cluster.namespace, southbound=southbound
    )
    cluster.add_join_token("join", TOKEN, NODE)
    reply = await service.enrol(build_request(join_token=TOKEN))
    access = reply.southbound
    assert access is not None
    own, chassis = (
        x509.load_pem_x509_certificate(pem.encode()) for pem in (reply.certificate_pem, access.certificate_pem)
    )
    assert access.remote == REMOTE
    assert access.ca_pem == authorities.southbound.ca_pem
    assert chassis.public_key() == own.public_key()
    assert [(name.oid, name.value) for name in chassis.subject] == [(NameOID.COMMON_NAME, NODE)]
    assert usage(chassis) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert authorities.southbound.has_issued(chassis)
    assert not fleet.authority.has_issued(chassis)
    assert not authorities.northbound.has_issued(chassis)


async def test_without_a_network_engine_there_is_no_access(cluster: MemoryCluster, enrolment: Enrolment) -> None:
    cluster.add_join_token("join", TOKEN, NODE)
    assert (await enrolment.enrol(build_request(join_token=TOKEN))).southbound is None


@pytest.fixture
async def authorities(cluster: MemoryCluster, clock: Clock) -> OvnAuthorities:
    return await load_ovn_authorities(cluster, clock)


async def test_the_operators_files_are_its_own_and_go_with_it(authorities: OvnAuthorities, tmp_path: Path) -> None:
    base = tmp_path / "base"
    with NorthboundAccess(authorities.northbound, base) as access:
        files = access.files
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        assert certificate.public_key() == key.public_key()
        assert usage(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert authorities.northbound.has_issued(certificate)
        assert files.ca.read_text() == authorities.northbound.ca_pem
        assert {path.stat().st_mode & 0o777 for path in files.key.parent.iterdir()} == {0o600}
        assert {path.stat().st_mode & 0o777 for path in (base, files.key.parent)} == {0o700}
    assert list(base.iterdir()) == []


async def test_the_operators_certificate_is_renewed_for_the_same_key(
    authorities: OvnAuthorities, clock: Clock, tmp_path: Path
) -> None:
    with NorthboundAccess(authorities.northbound, tmp_path / "base") as access:
        key, first = access.files.key.read_bytes(), access.files.certificate.read_bytes()
        access.refresh()
        assert access.files.certificate.read_bytes() == first
        clock.now += timedelta(hours=17)
        access.refresh()
        assert access.files.certificate.read_bytes() != first
        assert access.files.key.read_bytes() == key
        assert sorted(path.name for path in access.files.key.parent.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]


async def test_what_a_killed_operator_left_is_removed_and_what_is_in_use_is_not(
    authorities: OvnAuthorities, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir(mode=0o700)
    (base / "northbound-killed").mkdir(mode=0o700)
    (base / "northbound-killed" / "tls.key").write_text("a key")
    with NorthboundAccess(authorities.northbound, base) as one, NorthboundAccess(authorities.northbound, base) as two:
        assert set(base.iterdir()) == {one.files.key.parent, two.files.key.parent}
        assert one.files.key.exists()


@pytest.mark.parametrize("trap", ["open", "link"])
async def test_a_folder_that_others_may_write_is_not_used(
    authorities: OvnAuthorities, tmp_path: Path, trap: str
) -> None:
    base = tmp_path / "base"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if trap == "open":
        base.mkdir()
        base.chmod(0o777)
    else:
        base.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"must be this user's|Not a directory"):
        NorthboundAccess(authorities.northbound, base).__enter__()
    assert list((tmp_path / "elsewhere").iterdir()) == []
