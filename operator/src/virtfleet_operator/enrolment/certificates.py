"""Certificates as values: build an authority, sign for a purpose. It reads no clock and no file; `now` is passed in.

The kinds of certificate differ in one thing that TLS itself checks: an operator's may only be used by a client, every
other only by a server. So no node and no webhook can act as an operator.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

OPERATORS: Final = "virtfleet:operators"
"""Organization in an operator's certificate; daemons accept no other."""

CA_LIFETIME: Final = timedelta(days=3650)
"""As long as kubeadm's authorities live: replacing it means to enrol every node again."""

LIFETIME: Final = timedelta(hours=24)
"""A stolen key is worth a day."""

SKEW: Final = timedelta(minutes=5)
"""How far the clocks of two hosts may differ; Kerberos allows the same."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Purpose:
    """What a certificate is for."""

    common_name: str
    usage: ObjectIdentifier
    names: tuple[str, ...] = ()
    organization: str | None = None


def operator_purpose() -> Purpose:
    """Return the purpose of an operator's certificate: a client of daemons."""
    return Purpose("virtfleet-operator", ExtendedKeyUsageOID.CLIENT_AUTH, organization=OPERATORS)


def serving_purpose(names: Iterable[str]) -> Purpose:
    """Return the purpose of one of the operator's own servers, by its DNS names and IP addresses."""
    return Purpose("virtfleet-operator", ExtendedKeyUsageOID.SERVER_AUTH, tuple(names))


def node_purpose(node_name: str) -> Purpose:
    """Return the purpose of a daemon's certificate: the server of this node, and nothing else."""
    return Purpose(node_name, ExtendedKeyUsageOID.SERVER_AUTH, (node_name,))


def chassis_purpose(node_name: str) -> Purpose:
    """Return the purpose of a node's certificate at OVN's southbound database, which knows a chassis by common name."""
    return Purpose(node_name, ExtendedKeyUsageOID.CLIENT_AUTH)


def writer_purpose() -> Purpose:
    """Return the purpose of an operator's certificate at OVN's northbound database."""
    return Purpose("virtfleet-operator", ExtendedKeyUsageOID.CLIENT_AUTH)


def database_purpose(names: Iterable[str]) -> Purpose:
    """Return the purpose of the certificate that one of OVN's databases serves with."""
    return Purpose("ovn-central", ExtendedKeyUsageOID.SERVER_AUTH, tuple(names))


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Make a key."""
    return ec.generate_private_key(ec.SECP256R1())


def encode_key(key: PrivateKey) -> bytes:
    """Return the key as PEM, unencrypted: it is kept in a Secret or in memory."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encode_certificate(certificate: x509.Certificate) -> bytes:
    """Return the certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def build_authority(now: datetime, common_name: str = "virtfleet") -> KeyPair:
    """Make a new certificate authority."""
    key = generate_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _start(name, name, key.public_key(), now)
    certificate = (
        builder.not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(encode_certificate(certificate), encode_key(key))


def sign(
    issuer: x509.Certificate, issuer_key: PrivateKey, public_key: PublicKey, purpose: Purpose, now: datetime
) -> x509.Certificate:
    """Sign a certificate that lives for a day, or as long as its issuer where that is shorter."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, purpose.common_name)]
    if purpose.organization:
        subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, purpose.organization))
    builder = (
        _start(x509.Name(subject), issuer.subject, public_key, now)
        .not_valid_after(min(now + LIFETIME, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose.usage]), critical=True)
        .add_extension(_issuer_identifier(issuer), critical=False)
    )
    if purpose.names:
        names = x509.SubjectAlternativeName([general_name(text) for text in purpose.names])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _start(subject: x509.Name, issuer: x509.Name, public_key: PublicKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the issuer's own identifier, which may be made in another way than ours when it comes from elsewhere."""
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)  # type: ignore[arg-type]  # `Authority` has checked its kind
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def general_name(text: str) -> x509.GeneralName:
    """Return a DNS name or an IP address as certificates have it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
