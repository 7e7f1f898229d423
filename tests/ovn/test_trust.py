"""Who may do what at OVN's databases. Every refusal is by the server: the client trusts the server in each case."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ovn_rig import OvnRig, eventually
from virtfleet_dev.control_plane import free_port
from virtfleet_dev.node import Node
from virtfleet_dev.ovn import Database
from virtfleet_dev.pki import LocalAuthority, Pair
from virtfleet_dev.secret_files import replace_files, server_files

READ = {"op": "select", "table": "Connection", "where": [], "columns": ["target"]}


def ask(database: Database, pair: Pair | None, operation: dict[str, Any], remote: str | None = None) -> dict[str, Any]:
    """Do one operation as the owner of a certificate and return its result; PermissionError if not even heard."""
    own = (f"--private-key={pair.key}", f"--certificate={pair.certificate}") if pair else ()
    trusted = f"--ca-cert={database.files.ca}"
    transaction = json.dumps([database.schema, operation])
    command = ["ovsdb-client", "--timeout=10", *own, trusted, "transact", remote or database.remote, transaction]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)[0]
    return result


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    """An authority that the databases do not know, such as the fleet's."""
    return LocalAuthority(tmp_path_factory.mktemp("stranger"), "ca")


def test_the_certificates_of_each_database_are_served_by_it(running_rig: OvnRig) -> None:
    central, trust = running_rig.central, running_rig.trust
    assert "rows" in ask(central.northbound, trust.writer(), READ)
    assert "rows" in ask(central.southbound, trust.chassis("node-a"), READ)


@pytest.mark.parametrize("name", ["northbound", "southbound"])
@pytest.mark.parametrize(
    "who", ["nobody", "stranger", "daemon of the fleet", "client of the other database", "a server", "without TLS"]
)
def test_nobody_else_is_heard(running_rig: OvnRig, stranger: LocalAuthority, name: str, who: str) -> None:
    central, trust = running_rig.central, running_rig.trust
    database: Database = getattr(central, name)
    other = trust.chassis("node-a") if name == "northbound" else trust.writer()
    own: LocalAuthority = getattr(trust, name)
    pairs = {
        "nobody": None,
        "stranger": stranger.issue("node-a", "node-a"),
        "daemon of the fleet": stranger.issue("daemon", "node-a", server_names=["node-a"]),
        "client of the other database": other,
        # The right authority's, but not for clients.
        "a server": own.issue("server", "ovn-central", server_names=["unused"]),
        "without TLS": None,
    }
    remote = database.remote.replace("ssl:", "tcp:") if who == "without TLS" else None
    with pytest.raises(PermissionError):
        ask(database, pairs[who], READ, remote)


def change(table: str, where: list[Any], row: dict[str, Any]) -> dict[str, Any]:
    return {"op": "update", "table": table, "where": where, "row": row}


MARK = {"external_ids": ["map", [["marked", "yes"]]]}


def test_a_node_may_change_its_own_chassis(running_rig: OvnRig) -> None:
    database = running_rig.central.southbound
    operation = change("Chassis", [["name", "==", "node-a"]], MARK)
    assert ask(database, running_rig.trust.chassis("node-a"), operation) == {"count": 1}


@pytest.mark.parametrize(
    "operation",
    [
        change("Chassis", [["name", "==", "node-b"]], MARK),
        {"op": "delete", "table": "Chassis", "where": [["name", "==", "node-b"]]},
        {
            "op": "insert",
            "table": "Chassis",
            "row": {"name": "node-z", "encaps": ["uuid", "00000000-0000-4000-8000-000000000000"]},
        },
        change("Encap", [["chassis_name", "==", "node-b"]], {"ip": "192.0.2.1"}),
        change("Chassis_Private", [["name", "==", "node-b"]], MARK),
        change("Logical_Flow", [], {"priority": 1}),
        {"op": "delete", "table": "Logical_Flow", "where": []},
        {"op": "insert", "table": "Address_Set", "row": {"name": "forged", "addresses": "192.0.2.1"}},
        change("Port_Binding", [], {"mac": "02:00:00:00:00:66 192.0.2.1"}),
        change("SB_Global", [], MARK),
        change("Connection", [], {"role": ""}),
        {"op": "delete", "table": "RBAC_Role", "where": []},
    ],
    ids=lambda operation: f"{operation['op']} {operation['table']}",
)
def test_a_node_may_not_change_what_is_anothers(rig: OvnRig, operation: dict[str, Any]) -> None:
    rig.nbctl("ls-add", "net", "--", "lsp-add", "net", "one")
    rig.nbctl("--wait=sb", "sync")
    database, pair = rig.central.southbound, rig.trust.chassis("node-a")
    if operation["op"] != "insert":  # there is something to change
        counted = ask(database, pair, {"op": "select", "table": operation["table"], "where": operation["where"]})
        assert counted["rows"]
    assert ask(database, pair, operation)["error"] == "permission error"


@pytest.fixture
def database(running_rig: OvnRig, tmp_path: Path) -> Iterator[Database]:
    """A northbound database of its own, whose files can be replaced."""
    host = running_rig.fabric.host_address
    folder = tmp_path / "central"
    folder.mkdir()
    files = server_files(tmp_path / "files")
    made = Database("nb", "OVN_Northbound", free_port(host), host, folder, files)
    yield made
    made.program.stop()


def contents(authority: LocalAuthority, pair: Pair) -> dict[str, bytes]:
    names = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.pair.certificate}
    return {name: path.read_bytes() for name, path in names.items()}


def test_a_database_serves_with_a_renewed_certificate(database: Database, tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path / "authority", "ca")
    pairs = [authority.issue(f"server-{number}", "ovn-central", server_names=[database.host]) for number in (1, 2)]
    replace_files(tmp_path / "files", contents(authority, pairs[0]))
    database.start()
    database.listen(None)
    client = authority.issue("client", "virtfleet-operator")
    assert presented(database, client) == serial(pairs[0])
    replace_files(tmp_path / "files", contents(authority, pairs[1]))
    eventually(lambda: presented(database, client) == serial(pairs[1]), 15, "serving with the new certificate")
    assert "rows" in ask(database, client, READ)


def serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def presented(database: Database, client: Pair) -> int:
    command = ["openssl", "s_client", "-connect", f"{database.host}:{database.port}"]
    command += ["-cert", str(client.certificate), "-key", str(client.key)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10)
    start, end = (done.stdout.index(f"-----{word} CERTIFICATE-----") for word in ("BEGIN", "END"))
    return x509.load_pem_x509_certificate(
        (done.stdout[start:end] + "-----END CERTIFICATE-----\n").encode()
    ).serial_number


def test_ovn_controller_takes_up_files_that_change(
    running_rig: OvnRig, stranger: LocalAuthority, tmp_path: Path
) -> None:
    node, trust = running_rig.nodes[0], running_rig.trust
    files = server_files(tmp_path / "files")
    replace_files(tmp_path / "files", contents(trust.southbound, stranger.issue("node-a", "node-a")))
    try:
        node.connect_ovn(running_rig.central.southbound.remote, files.pair.key, files.pair.certificate, files.ca)
        assert is_connected(node)  # a connection outlives the certificate that it was made with
        restart(running_rig.central.southbound)
        eventually(lambda: is_connected(running_rig.nodes[1]), 15, "the other node to connect again")
        time.sleep(1)
        assert not is_connected(node)
        replace_files(tmp_path / "files", contents(trust.southbound, trust.chassis("node-a")))
        eventually(lambda: is_connected(node), 20, "connecting with the new certificate")
    finally:
        running_rig.connect(node)
        eventually(lambda: is_connected(node), 20, "connecting again")


def is_connected(node: Node) -> bool:
    return node.run("ovn-appctl", "-t", "ovn-controller", "connection-status").strip() == "connected"


def restart(database: Database) -> None:
    before = database.program.inner_pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    eventually(lambda: database.program.inner_pid not in (None, before), 15, "the database to be started again")
