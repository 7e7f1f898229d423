"""What somebody finds who steals a hypervisor: a certificate that serves under the node's name, and nothing else."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleet import Fleet
from virtfleet_dev.node import Node

LARGEST = 1 << 20
"""Larger files are disks and images."""

TOKEN_OR_KUBECONFIG = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|kind: Config\b|client-key-data|current-context")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def files_of(node: Node) -> Iterator[tuple[Path, bytes]]:
    """Yield what the daemon keeps, and its configuration."""
    for path in (node.directory / "virtfleet").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST:
            yield path, path.read_bytes()


def test_a_node_holds_no_kubernetes_credential(fleet: Fleet) -> None:
    for node in fleet.cluster.nodes:
        found = list(files_of(node))
        assert {path.name for path, content in found if PRIVATE_KEY.search(content)} == {"tls.key"}
        assert [path for path, content in found if TOKEN_OR_KUBECONFIG.search(content)] == []
        environment = Path(f"/proc/{fleet.cluster.daemon(node).inner_pid}/environ").read_bytes()
        assert b"KUBE" not in environment


def test_a_nodes_certificate_serves_and_does_nothing_else(fleet: Fleet) -> None:
    for node in fleet.cluster.nodes:
        folder = node.directory / "virtfleet" / "tls"
        certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert names.get_values_for_type(x509.DNSName) == [node.name]
        assert answer(f"{fleet.cluster.control_plane.server}/apis/virtfleet.io/v1alpha1/virtualmachines", folder) == 401


def answer(url: str, folder: Path) -> int:
    """Ask with the node's certificate, whatever the server's is, and return the HTTP status."""
    identity = ["--cert", folder / "tls.crt", "--key", folder / "tls.key"]
    command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", *identity, url]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
