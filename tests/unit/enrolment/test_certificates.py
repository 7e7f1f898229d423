import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from identities import Identities
from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.certificates import (
    CA_LIFETIME,
    LIFETIME,
    KeyPair,
    build_authority,
    encode_certificate,
    encode_key,
    generate_key,
    node_purpose,
    operator_purpose,
    serving_purpose,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(build_authority(NOW), lambda: NOW)


def load(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_authority_may_sign_certificates_and_nothing_else(authority: Authority) -> None:
    certificate = authority.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert certificate.not_valid_after_utc == NOW + CA_LIFETIME
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_an_operator_is_a_client_of_the_operators_organization(authority: Authority) -> None:
    certificate = load(authority.issue(operator_purpose()).certificate)
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    (organization,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert organization.value == "virtfleet:operators"


def test_a_node_is_a_server_of_its_name_for_a_day(authority: Authority) -> None:
    certificate = load(authority.sign(generate_key().public_key(), node_purpose("node-a")))
    assert usages(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.subject.rfc4514_string() == "CN=node-a"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("node-a")]
    assert certificate.not_valid_after_utc == NOW + LIFETIME == NOW + timedelta(hours=24)
    assert certificate.not_valid_before_utc <= NOW
    assert authority.has_issued(certificate)


def test_a_server_has_its_names_and_addresses(authority: Authority) -> None:
    certificate = load(authority.issue(serving_purpose(("operator.svc", "10.0.0.1", "fd00::1"))).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["operator.svc"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.1"), ip_address("fd00::1")]


def test_no_certificate_outlives_its_authority() -> None:
    pair = build_authority(NOW)
    late = Authority(pair, lambda: NOW + CA_LIFETIME - timedelta(hours=1))
    assert load(late.issue(operator_purpose()).certificate).not_valid_after_utc == NOW + CA_LIFETIME


def test_no_two_certificates_have_the_same_number(authority: Authority) -> None:
    numbers = {load(authority.issue(operator_purpose()).certificate).serial_number for _ in range(10)}
    assert len(numbers) == 10


def test_a_certificate_of_another_authority_is_not_ours(authority: Authority) -> None:
    other = Authority(build_authority(NOW), lambda: NOW)
    assert not authority.has_issued(load(other.issue(operator_purpose()).certificate))
    assert not authority.has_issued(other.certificate)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["rsa", "ed25519", "p384"],
)
def test_an_authority_that_is_brought_may_have_another_kind_of_key(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "brought")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    algorithm = (
        None
        if isinstance(key, ed25519.Ed25519PrivateKey)
        else Identities().authority.certificate.signature_hash_algorithm
    )
    pair = KeyPair(encode_certificate(builder.sign(key, algorithm)), encode_key(key))
    authority = Authority(pair, lambda: NOW)
    assert authority.has_issued(load(authority.issue(node_purpose("node-a")).certificate))
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authority.ca_pem)
