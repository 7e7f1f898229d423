from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from identities import NODE, Identities
from virtfleet_api.enrol import EnrolReply, SouthboundAccess
from virtfleet_node.api.credentials import CredentialsError, CredentialStore
from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.certificates import build_authority, generate_key, node_purpose
from virtfleet_operator.enrolment.ovn_trust import Southbound


@pytest.fixture
def fleet() -> Identities:
    return Identities()


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    return CredentialStore(tmp_path, NODE)


def sign(fleet: Identities, key: ec.EllipticCurvePrivateKey, name: str = NODE) -> str:
    return fleet.authority.sign(key.public_key(), node_purpose(name)).decode()


def reply(fleet: Identities, key: ec.EllipticCurvePrivateKey, name: str = NODE) -> EnrolReply:
    return EnrolReply(certificate_pem=sign(fleet, key, name), ca_pem=fleet.authority.ca_pem)


def fill(store: CredentialStore, fleet: Identities) -> ec.EllipticCurvePrivateKey:
    key = store.read_pending_key()
    store.store(key, reply(fleet, key))
    return key


def test_what_is_stored_is_read_by_the_next_process(store: CredentialStore, fleet: Identities, tmp_path: Path) -> None:
    key = fill(store, fleet)
    credentials = CredentialStore(tmp_path, NODE).read()
    assert credentials is not None
    assert credentials.key.private_numbers() == key.private_numbers()
    assert credentials.is_good(datetime.now(UTC))
    assert not credentials.is_good(datetime.now(UTC) + timedelta(hours=25))
    third = (credentials.renew_at - datetime.now(UTC)) / timedelta(hours=24)
    assert third == pytest.approx(2 / 3, abs=0.01)


def test_only_the_daemon_can_read_the_files(store: CredentialStore, fleet: Identities, tmp_path: Path) -> None:
    store.read_pending_key()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    fill(store, fleet)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}
    assert (tmp_path / "tls").resolve().stat().st_mode & 0o777 == 0o700


def test_a_renewal_leaves_nothing_behind(store: CredentialStore, fleet: Identities, tmp_path: Path) -> None:
    for _ in range(3):
        fill(store, fleet)
    assert len(list(tmp_path.iterdir())) == 2  # the link, and the folder that it leads to


def test_a_crash_before_the_link_is_turned_leaves_the_former_pair(
    store: CredentialStore, fleet: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = fill(store, fleet)
    monkeypatch.setattr(CredentialStore, "_turn_link", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fill(store, fleet)
    monkeypatch.undo()
    credentials = CredentialStore(tmp_path, NODE).read()
    assert credentials is not None
    assert credentials.key.private_numbers() == former.private_numbers()
    fill(store, fleet)
    assert len(list(tmp_path.iterdir())) == 2


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_key_is_kept_until_there_is_a_certificate_for_it(store: CredentialStore, tmp_path: Path) -> None:
    first, second = store.read_pending_key(), CredentialStore(tmp_path, NODE).read_pending_key()
    assert first.private_numbers() == second.private_numbers()


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nMIG"])
def test_a_key_that_a_crash_left_half_written_is_made_anew(
    store: CredentialStore, tmp_path: Path, content: bytes
) -> None:
    store.read_pending_key()
    (tmp_path / "tls.key.pending").write_bytes(content)
    assert store.read_pending_key().private_numbers() == store.read_pending_key().private_numbers()


def test_a_certificate_for_another_key_is_refused(store: CredentialStore, fleet: Identities) -> None:
    with pytest.raises(CredentialsError, match="another key"):
        store.store(store.read_pending_key(), reply(fleet, generate_key()))
    assert store.read() is None


def test_a_certificate_for_another_node_is_refused(store: CredentialStore, fleet: Identities) -> None:
    key = store.read_pending_key()
    with pytest.raises(CredentialsError, match="not for node-a"):
        store.store(key, reply(fleet, key, "node-b"))


@pytest.mark.parametrize("ca_pem", ["", "nonsense", Identities().authority.ca_pem])
def test_a_certificate_of_another_authority_is_refused(store: CredentialStore, fleet: Identities, ca_pem: str) -> None:
    key = store.read_pending_key()
    with pytest.raises(CredentialsError, match="authority"):
        store.store(key, EnrolReply(certificate_pem=sign(fleet, key), ca_pem=ca_pem))


@pytest.mark.parametrize("name", ["tls.key", "tls.crt", "ca.crt"])
@pytest.mark.parametrize("content", [None, b"", b"\xff"])
def test_files_that_were_damaged_count_as_none(
    store: CredentialStore, fleet: Identities, tmp_path: Path, name: str, content: bytes | None
) -> None:
    fill(store, fleet)
    path = tmp_path / "tls" / name
    path.unlink() if content is None else path.write_bytes(content)
    assert store.read() is None


def test_the_certificate_of_a_former_name_counts_as_none(
    store: CredentialStore, fleet: Identities, tmp_path: Path
) -> None:
    fill(store, fleet)
    assert CredentialStore(tmp_path, "node-b").read() is None


REMOTE = "ssl:10.0.0.9:6642"
OVN = Authority(build_authority(datetime.now(UTC)))


def give_access(key: ec.EllipticCurvePrivateKey, name: str = NODE) -> SouthboundAccess:
    return Southbound(OVN, REMOTE).give_access(name, key.public_key())


def test_the_southbound_certificate_lies_beside_the_key(
    store: CredentialStore, fleet: Identities, tmp_path: Path
) -> None:
    key = store.read_pending_key()
    access = give_access(key)
    store.store(key, reply(fleet, key).model_copy(update={"southbound": access}))
    files = CredentialStore(tmp_path, NODE).read_southbound()
    assert files is not None
    assert files.remote == REMOTE
    assert files.certificate.read_text() == access.certificate_pem
    assert files.ca.read_text() == OVN.ca_pem != fleet.authority.ca_pem
    assert files.key == tmp_path / "tls" / "tls.key"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}


def test_a_reply_without_network_engine_leaves_no_access(store: CredentialStore, fleet: Identities) -> None:
    key = store.read_pending_key()
    store.store(key, reply(fleet, key).model_copy(update={"southbound": give_access(key)}))
    fill(store, fleet)
    assert store.read_southbound() is None


@pytest.mark.parametrize("wrong", ["key", "name", "authority"])
def test_a_southbound_certificate_of_another_is_refused(store: CredentialStore, fleet: Identities, wrong: str) -> None:
    key = store.read_pending_key()
    access = give_access(generate_key() if wrong == "key" else key, "node-b" if wrong == "name" else NODE)
    if wrong == "authority":
        access = access.model_copy(update={"ca_pem": fleet.authority.ca_pem})
    with pytest.raises(CredentialsError, match="southbound certificate is"):
        store.store(key, reply(fleet, key).model_copy(update={"southbound": access}))
    assert store.read() is None
