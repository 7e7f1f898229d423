"""The fleet's certificate authority: loaded from, or made in, Secret virtfleet-ca. Its key never leaves this process.

A Secret that is there but cannot be used is never overwritten: every node trusts what it holds.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from virtfleet_api.names import CA_NAME
from virtfleet_operator.enrolment.certificates import (
    KeyPair,
    PrivateKey,
    PublicKey,
    Purpose,
    build_authority,
    encode_certificate,
    encode_key,
    generate_key,
    sign,
)
from virtfleet_operator.enrolment.errors import AuthorityError
from virtfleet_operator.enrolment.ports import Cluster, Data

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]

CERTIFICATE_KEY: Final = "tls.crt"
PRIVATE_KEY: Final = "tls.key"
"""Keys of a Secret of type kubernetes.io/tls, so that cert-manager may bring the authority, too."""


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Authority:
    """A certificate authority in memory."""

    def __init__(self, pair: KeyPair, clock: Clock = utc_now, source: str = f"Secret {CA_NAME}") -> None:
        """Take the authority over; AuthorityError says why what is in `source` cannot be used."""
        self.certificate, self._key = _parse(pair, source)
        self.clock = clock
        _check(self.certificate, self._key, clock(), source)

    @property
    def ca_pem(self) -> str:
        """Return the certificate that peers trust."""
        return encode_certificate(self.certificate).decode()

    def sign(self, public_key: PublicKey, purpose: Purpose) -> bytes:
        """Sign a certificate for somebody else's key and return it as PEM."""
        return encode_certificate(sign(self.certificate, self._key, public_key, purpose, self.clock()))

    def issue(self, purpose: Purpose) -> KeyPair:
        """Make a key and sign a certificate for it, for a use in this process."""
        key = generate_key()
        return KeyPair(self.sign(key.public_key(), purpose), encode_key(key))

    def derive_key(self, purpose: str) -> bytes:
        """Return a key of 32 bytes for a purpose: the same for as long as the authority is (RFC 5869)."""
        secret = encode_key(self._key)
        return HKDF(hashes.SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Tell whether the certificate is signed by this authority. It may be past its time."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except Exception:  # noqa: BLE001 -- a hostile certificate fails in many ways, and every one means no
            return False
        return True


async def load_authority(cluster: Cluster, clock: Clock = utc_now) -> Authority:
    """Load the fleet's authority, made if there is none, and publish its certificate.

    Raises:
        AuthorityError: the Secret is there but cannot be used.
    """
    data = await cluster.read_authority()
    if data is None:
        log.info("Making the fleet's certificate authority", extra={"action": "CreateAuthority", "secret": CA_NAME})
        made = build_authority(clock())
        if not await cluster.create_authority({CERTIFICATE_KEY: made.certificate, PRIVATE_KEY: made.key}):
            log.info("Another operator was first", extra={"action": "CreateAuthority", "secret": CA_NAME})
        data = await cluster.read_authority()  # what is stored counts, also when our own create was answered twice
    authority = Authority(_read_pair(data or {}), clock)
    await cluster.publish_authority(authority.ca_pem)
    return authority


def _read_pair(data: Data) -> KeyPair:
    try:
        return KeyPair(data[CERTIFICATE_KEY], data[PRIVATE_KEY])
    except KeyError as error:
        raise AuthorityError(f"Secret {CA_NAME} has no key {error}: it must hold the fleet's authority.") from None


def _parse(pair: KeyPair, source: str) -> tuple[x509.Certificate, PrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, None)
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"{source} does not hold a certificate and its key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise AuthorityError(f"{source} holds a {type(key).__name__}: use an EC, RSA or Ed25519 key.")
    return certificate, key


def _check(certificate: x509.Certificate, key: PrivateKey, now: datetime, source: str) -> None:
    if certificate.public_key() != key.public_key():
        raise AuthorityError(f"In {source}, the key is not the key of the certificate.")
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise AuthorityError(f"The certificate in {source} is not an authority's (CA:TRUE is missing).")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise AuthorityError(
            f"The authority in {source} is not valid now (until {certificate.not_valid_after_utc:%Y-%m-%d}): "
            "delete the Secret, restart the operator and enrol the nodes again."
        )
