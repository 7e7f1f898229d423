"""Requests for certificates, as daemons and as attackers write them."""

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from identities import NODE, Identities
from virtfleet_api.enrol import EnrolRequest, Renewal
from virtfleet_operator.enrolment.certificates import KeyPair, generate_key, node_purpose

TOKEN = "0123456789abcdef0123456789abcdef"


def build_csr(key: Any, name: str = NODE) -> x509.CertificateSigningRequest:
    """Return a request signed by the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm)


def pem(csr: x509.CertificateSigningRequest) -> str:
    """Return the request as PEM."""
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def build_request(key: Any = None, node_name: str = NODE, **proof: Any) -> EnrolRequest:
    """Return what a daemon sends."""
    csr = build_csr(key or generate_key(), node_name)
    return EnrolRequest(node_name=node_name, address="10.0.0.1:8444", csr_pem=pem(csr), **proof)


def sign(key: Any, content: bytes) -> str:
    """Return the signature of a renewal."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(content, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(content)
    return base64.b64encode(signature).decode()


def build_renewal(
    certificate: bytes, key: Any, node_name: str = NODE, signed: bytes | None = None, csr: Any = None
) -> EnrolRequest:
    """Return a renewal with this certificate, signed by this key; `signed` is what is signed instead of the request."""
    csr = csr or build_csr(generate_key(), node_name)
    content = csr.public_bytes(serialization.Encoding.DER) if signed is None else signed
    renewal = Renewal(certificate_pem=certificate.decode(), signature=sign(key, content))
    return EnrolRequest(node_name=node_name, address="10.0.0.1:8444", csr_pem=pem(csr), renewal=renewal)


def read_key(pair: KeyPair) -> Any:
    """Return the key of a pair."""
    return serialization.load_pem_private_key(pair.key, None)


def issue_for(fleet: Identities, key: Any, node_name: str = NODE) -> bytes:
    """Return a node's certificate for this key."""
    return fleet.authority.sign(key.public_key(), node_purpose(node_name))
