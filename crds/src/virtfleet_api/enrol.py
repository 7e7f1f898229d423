"""How a node daemon gets its certificate: `POST /v1/enrol` at the operator.

The daemon proves who it is in one of three ways: a one-time join token, a projected ServiceAccount token bound to its
pod, or (to renew) a signature by the key of the certificate it holds.
"""

from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.names import DNS_SUBDOMAIN_PATTERN

ENROL_PATH: Final = "/v1/enrol"

MAX_ENROL_BYTES: Final = 65536
"""Largest request: a CSR has about 1 KiB, a ServiceAccount token about 1 KiB, a certificate about 1 KiB."""


OVN_REMOTE_PATTERN: Final = r"^ssl:[^\s,]{1,255}:[0-9]{1,5}(,ssl:[^\s,]{1,255}:[0-9]{1,5})*$"
"""One or more OVSDB servers (the members of a cluster), by TLS alone."""


class Renewal(Document):
    """Proof by the certificate that is about to expire."""

    certificate_pem: Annotated[str, Field(max_length=16384)]
    signature: Annotated[str, Field(max_length=4096)]
    """Base64 ECDSA-SHA256 signature of the CSR's DER bytes by the certificate's key."""


class EnrolRequest(Document):
    """A certificate request with a proof: exactly one of the three."""

    node_name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)]
    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$", max_length=300)]
    """host:port where the operator reaches the daemon."""
    csr_pem: Annotated[str, Field(max_length=16384)]
    join_token: Annotated[str | None, Field(max_length=256)] = None
    service_account_token: Annotated[str | None, Field(max_length=16384)] = None
    renewal: Renewal | None = None
    labels: Annotated[dict[str, str], Field(default_factory=dict, max_length=32)]
    """Labels that a newly made VMNode gets."""


class SouthboundAccess(Document):
    """How the node's ovn-controller reaches OVN's southbound database, and proves there which chassis it is."""

    remote: Annotated[str, Field(pattern=OVN_REMOTE_PATTERN, max_length=1024)]
    """`ssl:<address>:<port>`, or several of them with commas, as in `external_ids:ovn-remote` of Open vSwitch."""
    certificate_pem: Annotated[str, Field(max_length=16384)]
    """For the key of the request; its common name is the node's name, which is the chassis' name."""
    ca_pem: Annotated[str, Field(max_length=16384)]
    """The southbound database's own authority: it signs no daemon's certificate."""


class EnrolReply(Document):
    """The signed certificate, and the authority that operators' certificates are checked against."""

    certificate_pem: str
    ca_pem: str
    southbound: SouthboundAccess | None = None
    """Absent where the operator has no network engine."""
