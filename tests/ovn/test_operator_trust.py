"""OVN's databases with the certificates that an operator issues: each is heard where it should be, and only there."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from identities import NODE, Identities
from memory_cluster import MemoryCluster
from virtfleet_api.names import OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME
from virtfleet_dev.control_plane import free_port
from virtfleet_dev.ovn import Database
from virtfleet_dev.pki import Pair
from virtfleet_dev.secret_files import replace_files, server_files
from virtfleet_operator.enrolment.certificates import KeyPair, chassis_purpose
from virtfleet_operator.enrolment.northbound_files import NorthboundAccess
from virtfleet_operator.enrolment.ovn_trust import OvnAuthorities, keep_database_certificates, load_ovn_authorities

HOST = "127.0.0.1"
KINDS = {
    OVN_NORTHBOUND_TLS_NAME: ("nb", "OVN_Northbound", None),
    OVN_SOUTHBOUND_TLS_NAME: ("sb", "OVN_Southbound", "ovn-controller"),
}


@pytest.fixture
async def secrets() -> MemoryCluster:
    return MemoryCluster()


@pytest.fixture
async def authorities(secrets: MemoryCluster) -> OvnAuthorities:
    made = await load_ovn_authorities(secrets)
    await keep_database_certificates(secrets, made, (HOST,))
    return made


@pytest.fixture
def databases(secrets: MemoryCluster, authorities: OvnAuthorities, tmp_path: Path) -> Iterator[tuple[Database, ...]]:
    assert authorities
    folder = tmp_path / "central"
    folder.mkdir()
    made = []
    for secret, (name, schema, role) in KINDS.items():
        replace_files(tmp_path / secret, secrets.secrets[secret])
        made.append(Database(name, schema, free_port(HOST), HOST, folder, server_files(tmp_path / secret)))
        made[-1].start()
        made[-1].listen(role)
    yield tuple(made)
    for database in made:
        database.program.stop()


def hears(database: Database, pair: Pair) -> bool:
    own = (f"--private-key={pair.key}", f"--certificate={pair.certificate}", f"--ca-cert={database.files.ca}")
    read = json.dumps([database.schema, {"op": "select", "table": "Connection", "where": []}])
    command = ["ovsdb-client", "--timeout=10", *own, "transact", database.remote, read]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode == 0 and "pssl:" in done.stdout


def write(folder: Path, pair: KeyPair) -> Pair:
    folder.mkdir()
    files = Pair(folder / "tls.crt", folder / "tls.key")
    files.certificate.write_bytes(pair.certificate)
    files.key.write_bytes(pair.key)
    return files


def test_the_operator_is_heard_by_the_northbound_database_alone(
    databases: tuple[Database, ...], authorities: OvnAuthorities, tmp_path: Path
) -> None:
    with NorthboundAccess(authorities.northbound, tmp_path / "operator") as access:
        pair = Pair(access.files.certificate, access.files.key)
        assert [hears(database, pair) for database in databases] == [True, False]


def test_a_chassis_is_heard_by_the_southbound_database_alone(
    databases: tuple[Database, ...], authorities: OvnAuthorities, tmp_path: Path
) -> None:
    pair = write(tmp_path / "chassis", authorities.southbound.issue(chassis_purpose(NODE)))
    assert [hears(database, pair) for database in databases] == [False, True]


@pytest.mark.parametrize("who", ["node", "operator"])
def test_a_certificate_of_the_fleet_is_heard_by_neither(
    databases: tuple[Database, ...], tmp_path: Path, who: str
) -> None:
    fleet = Identities()
    pair = write(tmp_path / who, fleet.node() if who == "node" else fleet.operator())
    assert [hears(database, pair) for database in databases] == [False, False]
