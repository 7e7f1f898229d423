"""Who may speak to the daemon: operators of the fleet, known by their certificate.

TLS has checked the chain when the connection was made. Its time is checked with every request, since a connection may
outlive the certificate it was made with.
"""

import ssl
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from virtfleet_api.node_api import ProblemReason
from virtfleet_node.core.errors import NodeError

OPERATORS: Final = "virtfleet:operators"
"""Organization in the certificate of an operator; a node's has none."""


class ForbiddenError(NodeError):
    """The peer is not an operator of the fleet."""

    reason = ProblemReason.FORBIDDEN


def build_server_context() -> ssl.SSLContext:
    """Return TLS settings that ask every peer for a certificate. Own certificate and authority are loaded later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # trusts nobody until an authority is loaded
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a resumed session would skip the check of the peer's certificate
    return context


def build_copy_context() -> ssl.SSLContext:
    """Return TLS settings for what needs no certificate of its peers, but a token."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def check_operator(request: web.Request) -> None:
    """Refuse a peer whose certificate is not an operator's: ForbiddenError."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    encoded = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
    if encoded is None or not is_operator(x509.load_der_x509_certificate(encoded), datetime.now(UTC)):
        raise ForbiddenError("This certificate is not an operator's, or its time is over.")


def is_operator(certificate: x509.Certificate, now: datetime) -> bool:
    """Tell whether a certificate of the fleet is an operator's: for clients, in their organization, in its time."""
    organizations = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    in_time = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
    return in_time and organizations == [OPERATORS] and list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
