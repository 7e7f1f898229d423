"""The node's certificate in use: got at enrolment, renewed while it is good, taken up without dropping a connection."""

import asyncio
import logging
import random
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from virtfleet_node.api.access import build_copy_context, build_server_context
from virtfleet_node.api.credentials import CredentialStore, SouthboundFiles
from virtfleet_node.api.enrolment import Enroller, EnrolmentError
from virtfleet_node.config import Config

_LOG = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 30.0
"""An operator that comes back finds its nodes within half a minute."""

_LONGEST_SLEEP_SECONDS: Final = 600.0
"""The clock may be set, or the host sleep: the time of renewal is looked at again and again."""


class Identity:
    """Key and certificate of this node."""

    def __init__(self, config: Config) -> None:
        self._node_name = config.node_name
        self._store = CredentialStore(config.state_directory, config.node_name)
        self._enroller = Enroller(config, self._store)
        self._context = build_server_context()
        self._copy_context = build_copy_context()
        self._has_asked = False
        self.expires_at: datetime | None = None
        """When the certificate in use ends; None while there is none."""

    @property
    def context(self) -> ssl.SSLContext:
        """Return the server's TLS settings; a renewed certificate is used for connections made after it."""
        return self._context

    @property
    def copy_context(self) -> ssl.SSLContext:
        """Return the TLS settings of the server that gives copies of images to other nodes."""
        return self._copy_context

    def peer_context(self) -> ssl.SSLContext:
        """Return TLS settings of a client of other nodes: they are trusted by the fleet's authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(self._store.ca_path)
        return context

    def southbound(self) -> SouthboundFiles | None:
        """Return what ovn-controller connects with; None where the operator has no network engine, or did not yet."""
        return self._store.read_southbound()

    async def ensure(self) -> None:
        """Have a certificate that is good: the stored one, or one from the operator, asked for until it answers."""
        current = self._store.read()
        if current is None or not current.is_good(datetime.now(UTC)):
            await self._enrol_at_last()
        self._load()

    async def keep(self) -> None:
        """Renew the certificate for as long as the daemon runs.

        A node that enrolled before the fleet had a network engine asks at its start for what it lacks.
        """
        if not self._has_asked and self.southbound() is None:
            with suppress(EnrolmentError):
                await self._enroller.enrol(datetime.now(UTC))
                self._load()
        while True:
            current = self._store.read()
            seconds = (current.renew_at - datetime.now(UTC)).total_seconds() if current else 0.0
            if seconds > 0:
                await asyncio.sleep(min(seconds, _LONGEST_SLEEP_SECONDS))
            else:
                await self._enrol_at_last()
                self._load()
                await asyncio.sleep(_FIRST_RETRY_SECONDS)  # an operator that gives old certificates is not flooded

    async def _enrol_at_last(self) -> None:
        wait = _FIRST_RETRY_SECONDS
        while True:
            facts = {"action": "Enrol", "node": self._node_name}
            try:
                _LOG.info("Enrolling at the operator", extra=facts)
                await self._enroller.enrol(datetime.now(UTC))
            except EnrolmentError as error:
                _LOG.warning("Enrolling failed: %s", error, extra={**facts, "retry_seconds": wait})
                await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 -- spreads retries, keeps no secret
                wait = min(2 * wait, _LONGEST_RETRY_SECONDS)
            else:
                self._has_asked = True
                return

    def _load(self) -> None:
        for context in (self._context, self._copy_context):
            context.load_cert_chain(self._store.certificate_path, self._store.key_path)
        # A former authority stays trusted until the daemon is started again: an SSLContext forgets none.
        self._context.load_verify_locations(self._store.ca_path)
        current = self._store.read()
        self.expires_at = current.certificate.not_valid_after_utc if current else None
