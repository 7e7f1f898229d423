"""Who may speak to the daemon: operators of the fleet, known by their certificate. TLS has checked chain and time."""

import ssl
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


def check_operator(request: web.Request) -> None:
    """Refuse a peer whose certificate is not an operator's: ForbiddenError."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    encoded = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
    if encoded is None or not is_operator(x509.load_der_x509_certificate(encoded)):
        raise ForbiddenError("This certificate is not an operator's.")


def is_operator(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate of the fleet is made for operators: as a client, and in their organization."""
    organizations = {a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)}
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return organizations == {OPERATORS} and ExtendedKeyUsageOID.CLIENT_AUTH in usage
