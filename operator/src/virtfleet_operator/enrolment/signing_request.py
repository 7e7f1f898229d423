"""Certificate signing requests of daemons. Nothing but the public key is taken from one."""

import base64
import binascii
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from virtfleet_operator.enrolment.certificates import PublicKey
from virtfleet_operator.enrolment.errors import InvalidRequestError

RSA_BITS: Final = (2048, 8192)
"""NIST SP 800-57 asks for 2048; larger than 8192 costs the verifier more than it costs the one who sends it."""

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)


def parse_signing_request(pem: str) -> x509.CertificateSigningRequest:
    """Parse a request and check that it is signed by its own key; InvalidRequestError."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        check_key(request.public_key())
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequestError("csrPem is not a certificate signing request in PEM with a supported key.") from None
    if not signed:
        raise InvalidRequestError("csrPem is not signed by the key it holds.")
    return request


def check_key(key: object) -> PublicKey:
    """Return the key if it is of a kind that is accepted; InvalidRequestError."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and RSA_BITS[0] <= key.key_size <= RSA_BITS[1]:
        return key
    raise InvalidRequestError("The key must be EC P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits.")


def fingerprint(key: PublicKey) -> bytes:
    """Return the SHA-256 of the key."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    return digest.finalize()


def is_signed_by(key: PublicKey, signature_base64: str, content: bytes) -> bool:
    """Tell whether the content is signed by the key."""
    try:
        signature = base64.b64decode(signature_base64, validate=True)
        _verify(key, signature, content)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def _verify(key: PublicKey, signature: bytes, content: bytes) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
    else:
        key.verify(signature, content)
