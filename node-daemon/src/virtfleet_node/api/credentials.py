"""Key and certificate of the node as files in <state directory>/tls: `tls.key`, `tls.crt`, `ca.crt`, mode 0600.

Where there is a network engine, `ovn.crt` is the same key's certificate at OVN's southbound database, `ovn-ca.crt` whom
the database's own must be from, and `ovn-remote` where it is. Open vSwitch and ovn-controller are given the paths below
the link, and read the files again when they have changed.

They are written into a folder of their own, to which the link `tls` is then turned: no crash can pair a new key with
an old certificate. The key that a certificate is being asked for is kept, too: an answer that was lost on its way is
asked for again with the same key, which a used join token still allows.
"""

import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from virtfleet_api.enrol import EnrolReply, SouthboundAccess
from virtfleet_node.api.epoch import sync_directory

_RENEW_AFTER: Final = 2 / 3
"""Share of a certificate's life after which it is renewed: 8 of 24 hours are left for an operator that is away."""

_LINK: Final = "tls"
_PENDING: Final = "tls.key.pending"


@dataclass(frozen=True)
class Credentials:
    """A certificate of this node with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    certificate_pem: str

    def is_good(self, now: datetime) -> bool:
        """Tell whether the certificate is in its time."""
        return self.certificate.not_valid_before_utc <= now < self.certificate.not_valid_after_utc

    @property
    def renew_at(self) -> datetime:
        """Return the time from which on it is renewed."""
        life: timedelta = self.certificate.not_valid_after_utc - self.certificate.not_valid_before_utc
        return self.certificate.not_valid_before_utc + _RENEW_AFTER * life


@dataclass(frozen=True)
class SouthboundFiles:
    """What ovn-controller connects to the southbound database with."""

    remote: str
    """As in `external_ids:ovn-remote` of Open vSwitch."""
    key: Path
    certificate: Path
    ca: Path


class CredentialsError(Exception):
    """What the operator gave is no certificate of this node."""


class CredentialStore:
    """The files, read and written as a whole."""

    def __init__(self, state_directory: Path, node_name: str) -> None:
        self._directory = state_directory
        self._node_name = node_name
        self._link = state_directory / _LINK

    @property
    def key_path(self) -> Path:
        """Return where the key is."""
        return self._link / "tls.key"

    @property
    def certificate_path(self) -> Path:
        """Return where the certificate is."""
        return self._link / "tls.crt"

    @property
    def ca_path(self) -> Path:
        """Return where the authority is that operators' certificates are checked against."""
        return self._link / "ca.crt"

    def read(self) -> Credentials | None:
        """Return what is stored; None if there is nothing, or nothing that fits together and names this node."""
        try:
            key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
            pem = self.certificate_path.read_text()
            ca_pem = self.ca_path.read_text()
            return check_credentials(key, pem, ca_pem, self._node_name)
        except (OSError, ValueError, TypeError, CredentialsError):
            return None

    def read_southbound(self) -> SouthboundFiles | None:
        """Return the access to OVN's southbound database; None if the operator has given none."""
        try:
            remote = (self._link / "ovn-remote").read_text()
        except OSError:
            return None
        return SouthboundFiles(remote, self.key_path, self._link / "ovn.crt", self._link / "ovn-ca.crt")

    def read_pending_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key that a certificate is being asked for, made and kept unless there is one."""
        path = self._directory / _PENDING
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
        except (OSError, ValueError, TypeError):
            pass  # none, or one that a crash left half written
        made = ec.generate_private_key(ec.SECP256R1())
        path.unlink(missing_ok=True)
        _write_private(path, _encode(made))
        return made

    def store(self, key: ec.EllipticCurvePrivateKey, reply: EnrolReply) -> None:
        """Make this the node's certificate, or certificates; CredentialsError if one is none."""
        check_credentials(key, reply.certificate_pem, reply.ca_pem, self._node_name)
        files = {"tls.key": _encode(key), "tls.crt": reply.certificate_pem.encode(), "ca.crt": reply.ca_pem.encode()}
        if (access := reply.southbound) is not None:
            check_chassis(key, access, self._node_name)
            files |= {"ovn.crt": access.certificate_pem.encode(), "ovn-ca.crt": access.ca_pem.encode()}
            files["ovn-remote"] = access.remote.encode()
        generation = self._directory / f"{_LINK}-{secrets.token_hex(6)}"
        generation.mkdir(mode=0o700)
        for name, content in files.items():
            _write_private(generation / name, content)
        sync_directory(generation)
        self._turn_link(generation)
        (self._directory / _PENDING).unlink(missing_ok=True)
        self._remove_others(generation)

    def _turn_link(self, generation: Path) -> None:
        partial = self._link.with_name(f"{_LINK}.partial")
        partial.unlink(missing_ok=True)
        partial.symlink_to(generation.name)
        partial.replace(self._link)  # the one step that makes the new pair the one in use
        sync_directory(self._directory)

    def _remove_others(self, generation: Path) -> None:
        """Remove what was in use before, and what crashes have left."""
        for path in self._directory.glob(f"{_LINK}-*"):
            if path != generation:
                shutil.rmtree(path, ignore_errors=True)


def check_credentials(key: object, certificate_pem: str, ca_pem: str, node_name: str) -> Credentials:
    """Return the credentials if key, certificate, authority and node fit together; CredentialsError."""
    try:
        certificate = _parse_issued(certificate_pem, ca_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception as error:  # from a peer: malformed in any way, it is refused
        raise CredentialsError(f"the certificate is not one of the given authority ({type(error).__name__})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise CredentialsError("the certificate is for another key")
    if node_name not in names.get_values_for_type(x509.DNSName):
        raise CredentialsError(f"the certificate is not for {node_name}")
    return Credentials(key, certificate, certificate_pem)


def check_chassis(key: ec.EllipticCurvePrivateKey, access: SouthboundAccess, node_name: str) -> None:
    """Check that the southbound certificate is this node's and for its key: CredentialsError."""
    try:
        certificate = _parse_issued(access.certificate_pem, access.ca_pem)
        names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Exception as error:  # from a peer: malformed in any way, it is refused
        raise CredentialsError(f"the southbound certificate is not its authority's ({type(error).__name__})") from error
    if certificate.public_key() != key.public_key():
        raise CredentialsError("the southbound certificate is for another key")
    if names != [node_name]:
        raise CredentialsError(f"the southbound certificate is not for {node_name}")


def _parse_issued(certificate_pem: str, ca_pem: str) -> x509.Certificate:
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem.encode()))
    return certificate


def _encode(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
