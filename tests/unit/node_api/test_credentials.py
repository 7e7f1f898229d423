from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from identities import NODE, Identities
from virtfleet_node.api.credentials import CredentialsError, CredentialStore
from virtfleet_operator.enrolment.certificates import generate_key, node_purpose


@pytest.fixture
def fleet() -> Identities:
    return Identities()


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    return CredentialStore(tmp_path, NODE)


def sign(fleet: Identities, key: ec.EllipticCurvePrivateKey, name: str = NODE) -> str:
    return fleet.authority.sign(key.public_key(), node_purpose(name)).decode()


def fill(store: CredentialStore, fleet: Identities) -> ec.EllipticCurvePrivateKey:
    key = store.read_pending_key()
    store.store(key, sign(fleet, key), fleet.authority.ca_pem)
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
        store.store(store.read_pending_key(), sign(fleet, generate_key()), fleet.authority.ca_pem)
    assert store.read() is None


def test_a_certificate_for_another_node_is_refused(store: CredentialStore, fleet: Identities) -> None:
    key = store.read_pending_key()
    with pytest.raises(CredentialsError, match="not for node-a"):
        store.store(key, sign(fleet, key, "node-b"), fleet.authority.ca_pem)


@pytest.mark.parametrize("ca_pem", ["", "nonsense", Identities().authority.ca_pem])
def test_a_certificate_of_another_authority_is_refused(store: CredentialStore, fleet: Identities, ca_pem: str) -> None:
    key = store.read_pending_key()
    with pytest.raises(CredentialsError, match="authority"):
        store.store(key, sign(fleet, key), ca_pem)


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
