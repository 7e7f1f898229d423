"""Asking the operator for a certificate. The proofs that the daemon has are tried one after the other."""

import base64
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from virtfleet_api.enrol import ENROL_PATH, EnrolReply, EnrolRequest, Renewal
from virtfleet_api.node_api import Problem
from virtfleet_node.api.credentials import Credentials, CredentialsError, CredentialStore
from virtfleet_node.config import Config

_REPLY_BYTES: Final = 65536
"""Two certificates and two authorities have about 1 KiB each."""

_TOKEN_BYTES: Final = 16384
"""Largest token file: ServiceAccount tokens have about 1 KiB."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=20)

Proof = dict[str, str | Renewal]


class EnrolmentError(Exception):
    """The operator gave no certificate; the text says why."""


class ProofRefusedError(EnrolmentError):
    """The operator does not accept the proof; another may be accepted."""


class Enroller:
    """Asks for certificates."""

    def __init__(self, config: Config, store: CredentialStore) -> None:
        self._config = config
        self._store = store

    async def enrol(self, now: datetime) -> None:
        """Get a certificate and store it; EnrolmentError says why the last proof that was tried did not do."""
        try:
            await self._enrol(now)
        except (OSError, CredentialsError) as error:
            raise EnrolmentError(f"{type(error).__name__}: {error}") from error

    async def _enrol(self, now: datetime) -> None:
        current = self._store.read()
        key = self._store.read_pending_key()
        csr = build_signing_request(key, self._config.node_name)
        refusal: EnrolmentError = EnrolmentError(self._missing_proof(current))
        for proof in self._proofs(current, csr, now):
            try:
                reply = await self._ask(self._request(csr, proof))
            except ProofRefusedError as error:
                refusal = error
            else:
                self._store.store(key, reply)
                self._forget_join_token(proof)
                return
        raise refusal

    def _proofs(
        self, current: Credentials | None, csr: x509.CertificateSigningRequest, now: datetime
    ) -> Iterator[Proof]:
        """Yield the proofs there are: the certificate in use, the pod's token, the join token."""
        if current is not None and current.is_good(now):
            yield {"renewal": build_renewal(current, csr)}
        enrolment = self._config.enrolment
        if token := _read_token(enrolment.service_account_token_file):
            yield {"service_account_token": token}
        if token := _read_token(enrolment.token_file):
            yield {"join_token": token}

    def _missing_proof(self, current: Credentials | None) -> str:
        """Say what to do when there is nothing to prove the node's name with."""
        enrolment = self._config.enrolment
        remedy = (
            f"create a join token for {self._config.node_name} and write it to {enrolment.token_file}"
            if enrolment.token_file
            else f"have the pod's ServiceAccount token projected to {enrolment.service_account_token_file}"
        )
        if current is None:
            return f"There is no certificate and no token to enrol with: {remedy}"
        expiry = f"{current.certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"
        return f"The certificate has expired ({expiry} UTC) and there is no token to enrol with: {remedy}"

    def _request(self, csr: x509.CertificateSigningRequest, proof: Proof) -> EnrolRequest:
        return EnrolRequest(
            node_name=self._config.node_name,
            address=self._config.advertise,
            csr_pem=csr.public_bytes(serialization.Encoding.PEM).decode(),
            labels=self._config.labels,
        ).model_copy(update=proof)

    async def _ask(self, request: EnrolRequest) -> EnrolReply:
        url = self._config.enrolment.url.rstrip("/") + ENROL_PATH
        try:
            # Trusts the pinned authority and no other.
            context = ssl.create_default_context(cafile=str(self._config.enrolment.ca_file))
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                body = request.model_dump_json(exclude_none=True)
                async with session.post(url, data=body, ssl=context, allow_redirects=False) as response:
                    return _read_reply(url, response.status, await _read_bounded(response))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EnrolmentError(f"{url}: {type(error).__name__}: {error!s:.300}") from error

    def _forget_join_token(self, proof: Proof) -> None:
        """Remove the file of the token that is used up, if that is possible: it is good for nothing any more."""
        if "join_token" in proof and self._config.enrolment.token_file is not None:
            with suppress(OSError):
                self._config.enrolment.token_file.unlink()


def build_signing_request(key: ec.EllipticCurvePrivateKey, node_name: str) -> x509.CertificateSigningRequest:
    """Return a request for this node, signed by its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_name)])
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())


def build_renewal(current: Credentials, csr: x509.CertificateSigningRequest) -> Renewal:
    """Return the proof that whoever sends the request has the key of the present certificate."""
    signature = current.key.sign(csr.public_bytes(serialization.Encoding.DER), ec.ECDSA(hashes.SHA256()))
    return Renewal(certificate_pem=current.certificate_pem, signature=base64.b64encode(signature).decode())


def _read_token(path: Path | None) -> str | None:
    if path is None or not path.exists():
        return None
    with path.open("rb") as file:
        return file.read(_TOKEN_BYTES).decode(errors="replace").strip() or None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _REPLY_BYTES:
            raise EnrolmentError(f"{response.url} answers more than {_REPLY_BYTES} bytes")
    return content


def _read_reply(url: str, status: int, content: bytes) -> EnrolReply:
    try:
        if status == HTTPStatus.OK:
            return EnrolReply.model_validate_json(content)
        sentence = Problem.model_validate_json(content).message
    except ValidationError:
        sentence = content[:300].decode(errors="replace")
    kind = ProofRefusedError if status == HTTPStatus.FORBIDDEN else EnrolmentError
    raise kind(f"{url} answers {status}: {sentence:.500}")
