import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from applicants import build_csr, pem, sign
from virtfleet_operator.enrolment.errors import InvalidRequestError
from virtfleet_operator.enrolment.signing_request import check_key, fingerprint, is_signed_by, parse_signing_request

ACCEPTED = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa2048": rsa.generate_private_key(65537, 2048),
}
REFUSED = {
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "rsa1024": rsa.generate_private_key(65537, 1024),  # noqa: S505 -- this is what must be refused
}


@pytest.mark.parametrize("key", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_good_request_is_parsed(key: ec.EllipticCurvePrivateKey) -> None:
    request = parse_signing_request(pem(build_csr(key)))
    assert fingerprint(check_key(request.public_key())) == fingerprint(key.public_key())


@pytest.mark.parametrize("key", REFUSED.values(), ids=REFUSED.keys())
def test_weak_and_unusual_keys_are_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(InvalidRequestError, match="EC P-256"):
        parse_signing_request(pem(build_csr(key)))


@pytest.mark.parametrize(
    "key", [ed448.Ed448PrivateKey.generate(), dsa.generate_private_key(2048)], ids=["ed448", "dsa"]
)
def test_other_kinds_of_key_are_refused(key: ed448.Ed448PrivateKey) -> None:
    with pytest.raises(InvalidRequestError):
        check_key(key.public_key())


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="csrPem is not a certificate signing request"):
        parse_signing_request(text)


def test_a_request_for_the_key_of_another_is_refused() -> None:
    """Whoever knows a public key must not get a certificate for it."""
    mine, others = (build_csr(ACCEPTED["p256"]), build_csr(ec.generate_private_key(ec.SECP256R1())))
    forged = others.tbs_certrequest_bytes
    der = mine.public_bytes(serialization.Encoding.DER)
    der = der.replace(mine.tbs_certrequest_bytes, forged)
    with pytest.raises(InvalidRequestError, match="not signed by the key"):
        parse_signing_request(pem(x509.load_der_x509_csr(der)))


@pytest.mark.parametrize("key", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_signature_holds_for_its_content_alone(key: ec.EllipticCurvePrivateKey) -> None:
    public = check_key(key.public_key())
    assert is_signed_by(public, sign(key, b"content"), b"content")
    assert not is_signed_by(public, sign(key, b"content"), b"other")
    for text in ("", "not base64!", "AAAA"):
        assert not is_signed_by(public, text, b"content")
