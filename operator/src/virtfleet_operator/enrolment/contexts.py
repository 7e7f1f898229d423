"""Certificates in use: TLS settings and key pairs that renew themselves, made and kept in memory alone."""

import ssl
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.certificates import LIFETIME, KeyPair, Purpose, operator_purpose, serving_purpose

RENEW_AFTER: Final = LIFETIME * (2 / 3)
"""A third of its life is left when a certificate is replaced, as with the nodes' certificates."""


class _RenewedPair:
    """A key pair that is issued anew when two thirds of its life are over."""

    def __init__(self, authority: Authority, purpose: Purpose) -> None:
        self._authority = authority
        self._purpose = purpose
        self._issued_at: datetime | None = None
        self._pair = KeyPair(b"", b"")

    def __call__(self) -> KeyPair:
        """Return the pair to use now; the same object until it is renewed."""
        now = self._authority.clock()
        if self._issued_at is None or now - self._issued_at >= RENEW_AFTER:
            self._pair = self._authority.issue(self._purpose)
            self._issued_at = now
        return self._pair


class ServingPair(_RenewedPair):
    """The certificate of one of the operator's servers, reached by these DNS names and IP addresses."""

    def __init__(self, authority: Authority, names: Sequence[str]) -> None:
        super().__init__(authority, serving_purpose(names))


class ClientTls:
    """TLS settings of the operator as a client of daemons. Give the node's name as server_hostname."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._pair = _RenewedPair(authority, operator_purpose())
        self._used: KeyPair | None = None
        self._context = _client_context(authority.ca_pem)

    def __call__(self) -> ssl.SSLContext:
        """Return the settings to use now; another object once the certificate has been renewed."""
        pair = self._pair()
        if pair is not self._used:
            # A new context, and not the old one with a new certificate: connections are pooled by context.
            self._context = _client_context(self._authority.ca_pem)
            load_pair(self._context, pair)
            self._used = pair
        return self._context


def build_server_context() -> ssl.SSLContext:
    """Return settings of a server that asks its peers for no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Have new connections use this certificate; those that are open go on with theirs."""
    # The ssl module reads certificates from files only; the folder is private to this user and gone at once.
    with tempfile.TemporaryDirectory(prefix="virtfleet-") as folder:
        path = Path(folder, "pair.pem")
        path.touch(mode=0o600)
        path.write_bytes(pair.key + pair.certificate)
        context.load_cert_chain(path)


def _client_context(ca_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name, and trusts nobody but:
    context.load_verify_locations(cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
