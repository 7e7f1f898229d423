"""Certificates of a made-up fleet, good and bad, as TLS settings of either side. The operator's own authority signs."""

import ssl
from datetime import UTC, datetime, timedelta

from cryptography.x509.oid import ExtendedKeyUsageOID

from virtfleet_node.api.access import build_server_context
from virtfleet_operator.enrolment.authority import Authority, Clock
from virtfleet_operator.enrolment.certificates import (
    KeyPair,
    Purpose,
    build_authority,
    node_purpose,
    operator_purpose,
)
from virtfleet_operator.enrolment.contexts import load_pair

NODE = "node-a"
UID = "0e2c1f54-8a0b-4c3d-9e6f-1a2b3c4d5e6f"


class Identities:
    """A fleet's authority and what it has signed."""

    def __init__(self) -> None:
        self.pair = build_authority(datetime.now(UTC))
        self.authority = Authority(self.pair)

    def at(self, clock: Clock) -> Authority:
        """Return the same authority with another clock."""
        return Authority(self.pair, clock)

    def operator(self) -> KeyPair:
        """Return an operator's certificate."""
        return self.authority.issue(operator_purpose())

    def expired_operator(self) -> KeyPair:
        """Return an operator's certificate whose day is over."""
        return self.short_operator(timedelta(seconds=-60))

    def short_operator(self, left: timedelta) -> KeyPair:
        """Return an operator's certificate that is good for this time still."""
        return issue_until(self.authority, operator_purpose(), datetime.now(UTC) + left)

    def node(self, name: str = NODE) -> KeyPair:
        """Return a node's certificate."""
        return self.authority.issue(node_purpose(name))

    def client(self, pair: KeyPair | None) -> ssl.SSLContext:
        """Return the settings of a client that trusts this fleet and shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority.ca_pem)
        if pair:
            load_pair(context, pair)
        return context

    def server(self, name: str = NODE) -> ssl.SSLContext:
        """Return the settings of a node's server."""
        context = build_server_context()
        context.load_verify_locations(cadata=self.authority.ca_pem)
        load_pair(context, self.node(name))
        return context


def issue_until(authority: Authority, purpose: Purpose, end: datetime) -> KeyPair:
    """Return a certificate that ends at a time, signed by this authority a day before."""
    former = Authority.__new__(Authority)
    former.__dict__.update(authority.__dict__, clock=lambda: end - timedelta(hours=24))
    return former.issue(purpose)


def client_without_organization() -> Purpose:
    """Return a client's purpose that names no organization."""
    return Purpose("somebody", ExtendedKeyUsageOID.CLIENT_AUTH)


def server_of_operators() -> Purpose:
    """Return a server's purpose in the operators' organization."""
    return Purpose("somebody", ExtendedKeyUsageOID.SERVER_AUTH, organization=operator_purpose().organization)
