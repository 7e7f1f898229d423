"""The daemon's certificate: made at enrolment, renewed while it is good, never leaving the node with its key.

Files in <state directory>/tls, mode 0600: `tls.key`, `tls.crt`, `ca.crt`. They are written into a folder of their own,
to which the link `tls` is then turned: no crash can pair a new key with an old certificate.
"""

import asyncio
import base64
import logging
import os
import random
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from virtfleet_api.enrol import ENROL_PATH, EnrolReply, EnrolRequest, Renewal
from virtfleet_node.config import Config

_LOG = logging.getLogger(__name__)

_RENEW_AFTER: Final = 2 / 3
"""Share of a certificate's life after which it is renewed: 8 of 24 hours are left for an operator that is away."""

_REPLY_BYTES: Final = 65536
_TIMEOUT: Final = aiohttp.ClientTimeout(total=20)
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 30.0


class EnrolmentError(Exception):
    """The operator gave no certificate; the text says why."""


class Identity:
    """Key and certificate of this node."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = config.state_directory / "tls"
        self._context = _server_context()

    @property
    def context(self) -> ssl.SSLContext:
        """Return the server's context; a renewed certificate is used for connections made after it."""
        return self._context

    async def ensure(self) -> None:
        """Have a certificate that is good: the stored one, or one from the operator, asked for until it answers."""
        wait = _FIRST_RETRY_SECONDS
        while self._seconds_left() <= 0:
            try:
                await self._enrol()
            except EnrolmentError as error:
                _LOG.warning("Enrolling failed", extra={"reason": str(error), "retry_seconds": wait})
                await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 -- jitter, not a secret
                wait = min(2 * wait, _LONGEST_RETRY_SECONDS)
        self._load()

    async def keep(self) -> None:
        """Renew the certificate for as long as the daemon runs."""
        while True:
            await asyncio.sleep(max(self._seconds_to_renewal(), _FIRST_RETRY_SECONDS))
            try:
                await self._enrol()
            except EnrolmentError as error:
                _LOG.warning("Renewing the certificate failed", extra={"reason": str(error)})
                await asyncio.sleep(_LONGEST_RETRY_SECONDS)
            else:
                self._load()

    def _load(self) -> None:
        self._context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        self._context.load_verify_locations(self._folder / "ca.crt")

    def _certificate(self) -> x509.Certificate | None:
        try:
            return x509.load_pem_x509_certificate((self._folder / "tls.crt").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _seconds_left(self) -> float:
        certificate = self._certificate()
        return (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() if certificate else 0.0

    def _seconds_to_renewal(self) -> float:
        certificate = self._certificate()
        if certificate is None:
            return 0.0
        life: timedelta = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return (certificate.not_valid_before_utc + _RENEW_AFTER * life - datetime.now(UTC)).total_seconds()

    async def _enrol(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._config.node_name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        reply = await self._ask(self._request(csr))
        await asyncio.to_thread(self._store, key, reply)
        _LOG.info("Enrolled", extra={"node": self._config.node_name})

    def _request(self, csr: x509.CertificateSigningRequest) -> EnrolRequest:
        """Build the request with the best proof there is: the present certificate, the pod's token, the join token."""
        request = EnrolRequest(
            node_name=self._config.node_name,
            address=self._config.advertise,
            csr_pem=csr.public_bytes(serialization.Encoding.PEM).decode(),
            labels=self._config.labels,
        )
        if self._seconds_left() > 0:
            return request.model_copy(update={"renewal": self._renewal(csr)})
        enrolment = self._config.enrolment
        for field, path in (
            ("service_account_token", enrolment.service_account_token_file),
            ("join_token", enrolment.token_file),
        ):
            if path is not None and path.exists():
                return request.model_copy(update={field: path.read_text().strip()})
        raise EnrolmentError(
            "there is no good certificate, no ServiceAccount token and no join token; create a join token for this "
            f"node and write it to {enrolment.token_file}"
        )

    def _renewal(self, csr: x509.CertificateSigningRequest) -> Renewal:
        key = serialization.load_pem_private_key((self._folder / "tls.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise EnrolmentError(
                f"{self._folder / 'tls.key'} is not a key of this daemon; remove the folder and enrol again"
            )
        signature = key.sign(csr.public_bytes(serialization.Encoding.DER), ec.ECDSA(hashes.SHA256()))
        certificate = (self._folder / "tls.crt").read_text()
        return Renewal(certificate_pem=certificate, signature=base64.b64encode(signature).decode())

    async def _ask(self, request: EnrolRequest) -> EnrolReply:
        url = self._config.enrolment.url.rstrip("/") + ENROL_PATH
        try:
            context = ssl.create_default_context(cafile=str(self._config.enrolment.ca_file))
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                body = request.model_dump_json(exclude_none=True)
                async with session.post(url, data=body, ssl=context, allow_redirects=False) as response:
                    content = await response.content.read(_REPLY_BYTES)
                    if response.status != 200:  # noqa: PLR2004 -- OK
                        raise EnrolmentError(
                            f"{url} answers {response.status}: {content[:300].decode(errors='replace')}"
                        )
                    return EnrolReply.model_validate_json(content)
        except (aiohttp.ClientError, OSError, TimeoutError, ValidationError) as error:
            raise EnrolmentError(f"{url}: {type(error).__name__}: {error!s:.300}") from error

    def _store(self, key: ec.EllipticCurvePrivateKey, reply: EnrolReply) -> None:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        generation = self._folder.with_name(f"tls-{x509.random_serial_number():x}"[:16])
        generation.mkdir(mode=0o700, parents=True)
        files = {"tls.key": pem, "tls.crt": reply.certificate_pem.encode(), "ca.crt": reply.ca_pem.encode()}
        for name, content in files.items():
            _write_private(generation / name, content)
        old = self._folder.resolve() if self._folder.is_symlink() else None
        link = self._folder.with_name("tls.partial")
        link.unlink(missing_ok=True)
        link.symlink_to(generation.name)
        link.replace(self._folder)  # the one step that makes the new pair the one in use
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    return context
