"""Whom OVN's databases trust: one authority each, apart from the fleet's, in Secret virtfleet-ovn.

The northbound database knows no roles: any certificate of its authority may rewrite every network, so only operators
get one. The southbound database's are the nodes'; the role that the database gives them holds each to its own chassis.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from virtfleet_api.enrol import SouthboundAccess
from virtfleet_api.names import OVN_NAME, OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME, OVN_TYPE
from virtfleet_operator.enrolment.authority import CERTIFICATE_KEY, PRIVATE_KEY, Authority, Clock, utc_now
from virtfleet_operator.enrolment.certificates import (
    KeyPair,
    PublicKey,
    build_authority,
    chassis_purpose,
    database_purpose,
    general_name,
)
from virtfleet_operator.enrolment.contexts import RENEW_AFTER
from virtfleet_operator.enrolment.errors import AuthorityError
from virtfleet_operator.enrolment.ports import Data, Secrets

log = logging.getLogger(__name__)

CA_KEY: Final = "ca.crt"
_TLS_TYPE: Final = "kubernetes.io/tls"

_NORTHBOUND: Final = "northbound"
_SOUTHBOUND: Final = "southbound"


@dataclass(frozen=True)
class OvnAuthorities:
    """The authorities of the two databases."""

    northbound: Authority
    southbound: Authority


@dataclass(frozen=True)
class Southbound:
    """The southbound database, as nodes are told of it."""

    authority: Authority
    remote: str

    def give_access(self, node_name: str, key: PublicKey) -> SouthboundAccess:
        """Sign a certificate for the key of a node that has proved its name."""
        pem = self.authority.sign(key, chassis_purpose(node_name)).decode()
        return SouthboundAccess(remote=self.remote, certificate_pem=pem, ca_pem=self.authority.ca_pem)


async def load_ovn_authorities(secrets: Secrets, clock: Clock = utc_now) -> OvnAuthorities:
    """Load the authorities, both made at once if there are none.

    Raises:
        AuthorityError: the Secret is there but cannot be used. It is never overwritten: every node trusts it.
    """
    data = await secrets.read_secret(OVN_NAME)
    if data is None:
        facts = {"action": "CreateAuthority", "secret": OVN_NAME}
        log.info("Making the authorities of OVN's databases", extra=facts)
        if not await secrets.create_secret(OVN_NAME, OVN_TYPE, _build(clock())):
            log.info("Another operator was first", extra=facts)
        data = await secrets.read_secret(OVN_NAME)  # what is stored counts, also when our own create was answered twice
    return OvnAuthorities(_read(data or {}, _NORTHBOUND, clock), _read(data or {}, _SOUTHBOUND, clock))


async def keep_database_certificates(secrets: Secrets, authorities: OvnAuthorities, names: Sequence[str]) -> None:
    """Have the Secrets that the databases serve with hold certificates for these names with a third of their life left.

    What is in them otherwise is replaced: only a certificate of the database's own authority serves nodes.
    """
    for secret, authority in (
        (OVN_NORTHBOUND_TLS_NAME, authorities.northbound),
        (OVN_SOUTHBOUND_TLS_NAME, authorities.southbound),
    ):
        data = await secrets.read_secret(secret)
        if data is not None and _serves(data, authority, names):
            continue
        log.info("Issuing a certificate", extra={"action": "IssueCertificate", "secret": secret})
        pair = authority.issue(database_purpose(names))
        fresh = {CERTIFICATE_KEY: pair.certificate, PRIVATE_KEY: pair.key, CA_KEY: authority.ca_pem.encode()}
        if data is not None or not await secrets.create_secret(secret, _TLS_TYPE, fresh):
            await secrets.write_secret(secret, fresh)


def _build(now: datetime) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for database in (_NORTHBOUND, _SOUTHBOUND):
        pair = build_authority(now, f"virtfleet OVN {database}")
        made |= {f"{database}.crt": pair.certificate, f"{database}.key": pair.key}
    return made


def _read(data: Data, database: str, clock: Clock) -> Authority:
    try:
        pair = KeyPair(data[f"{database}.crt"], data[f"{database}.key"])
    except KeyError as error:
        raise AuthorityError(f"Secret {OVN_NAME} has no key {error}: it must hold OVN's authorities.") from None
    return Authority(pair, clock, f"Secret {OVN_NAME} ({database}.crt, {database}.key)")


def _serves(data: Data, authority: Authority, names: Sequence[str]) -> bool:
    """Tell whether the certificate is this authority's, fits its key, has the names, and is not due for renewal."""
    try:
        certificate = x509.load_pem_x509_certificate(data[CERTIFICATE_KEY])
        key = serialization.load_pem_private_key(data[PRIVATE_KEY], None)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (KeyError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        data.get(CA_KEY) == authority.ca_pem.encode()
        and authority.has_issued(certificate)
        and certificate.public_key() == key.public_key()
        and set(found) == {general_name(name) for name in names}
        and authority.clock() - certificate.not_valid_before_utc < RENEW_AFTER
        and authority.clock() < certificate.not_valid_after_utc
    )
