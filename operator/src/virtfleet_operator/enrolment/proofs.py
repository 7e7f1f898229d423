"""The three proofs of who a daemon is. Each is checked as a whole: a peer learns that it failed, never which part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from virtfleet_api.enrol import Renewal
from virtfleet_api.names import JOIN_TOKEN_TYPE, NODE_AUDIENCE
from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.errors import InvalidRequestError, RefusedError
from virtfleet_operator.enrolment.ports import Cluster
from virtfleet_operator.enrolment.signing_request import check_key, fingerprint, is_signed_by
from virtfleet_operator.enrolment.tokens import UsedTokens, match, parse_join_tokens

NODE_SERVICE_ACCOUNT: Final = "virtfleet-node"
"""ServiceAccount of the daemons' pods, in the operator's namespace. It needs no rights."""

_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
"""What the API server says of the pod a token is bound to: k8s.io/apiserver/pkg/authentication/serviceaccount."""

JOIN_SENTENCE: Final = (
    "The join token is not good for this node: it is unknown, for another node, used or expired. "
    f"Create a new Secret of type {JOIN_TOKEN_TYPE}."
)
ACCOUNT_SENTENCE: Final = "The ServiceAccount token does not prove that its pod is this node's daemon."
RENEWAL_SENTENCE: Final = "The certificate cannot be renewed: enrol anew with a join token or a ServiceAccount token."


@dataclass(frozen=True)
class Applicant:
    """Who asks, as claimed, with the request that is to be signed."""

    node_name: str
    signing_request: x509.CertificateSigningRequest


class JoinTokenProof:
    """A token that was made for this node. It is used up before the certificate is given out."""

    def __init__(self, cluster: Cluster, authority: Authority) -> None:
        self._cluster = cluster
        self._clock = authority.clock
        self._used = UsedTokens()

    async def check(self, applicant: Applicant, token: str) -> None:
        """Use the token up, or raise RefusedError."""
        name, now = applicant.node_name, self._clock()
        key = fingerprint(check_key(applicant.signing_request.public_key()))
        if self._used.is_repeated(token, name, key, now):
            return
        found = match(parse_join_tokens(await self._cluster.read_join_tokens(), now), token, name)
        if found is None:
            raise RefusedError(JOIN_SENTENCE, "no such token for this node")
        if not await self._cluster.delete_join_token(found.secret_name):
            raise RefusedError(JOIN_SENTENCE, f"Secret {found.secret_name} was used by another request")
        self._used.remember(token, name, key, now)


class ServiceAccountProof:
    """A projected token of the daemon's pod, which runs on the node whose name is claimed."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    async def check(self, applicant: Applicant, token: str) -> None:
        """Ask the API server of the token and its pod, or raise RefusedError."""
        review = await self._cluster.review_token(token, NODE_AUDIENCE)
        pod_name, pod_uid = self._read_pod_reference(review)
        pod = await self._cluster.read_pod(self._namespace, pod_name)
        detail = _find_pod_problem(pod, pod_uid, applicant.node_name)
        if detail:
            raise RefusedError(ACCOUNT_SENTENCE, f"pod {pod_name}: {detail}")

    def _read_pod_reference(self, review: Mapping[str, Any]) -> tuple[str, str]:
        user = review.get("user") or {}
        extra = user.get("extra") or {}
        names: list[str] = list(extra.get(_POD_NAME) or ())
        uids: list[str] = list(extra.get(_POD_UID) or ())
        expected = f"system:serviceaccount:{self._namespace}:{NODE_SERVICE_ACCOUNT}"
        if review.get("authenticated") is not True:
            raise RefusedError(ACCOUNT_SENTENCE, f"not authenticated: {review.get('error')!s:.200}")
        if NODE_AUDIENCE not in (review.get("audiences") or ()):
            raise RefusedError(ACCOUNT_SENTENCE, "the token is for another audience")
        if user.get("username") != expected:
            raise RefusedError(ACCOUNT_SENTENCE, f"the token is {user.get('username')!s:.200}'s, not {expected}'s")
        if len(names) != 1 or len(uids) != 1:
            raise RefusedError(ACCOUNT_SENTENCE, "the token is not bound to a pod")
        return names[0], uids[0]


class RenewalProof:
    """A signature by the key of a node's certificate that is still good."""

    def __init__(self, cluster: Cluster, authority: Authority) -> None:
        self._cluster = cluster
        self._authority = authority

    async def check(self, applicant: Applicant, renewal: Renewal) -> None:
        """Check certificate and signature, and that the VMNode was not removed, or raise RefusedError."""
        detail = self._find_problem(applicant, renewal)
        if detail is None and not await self._cluster.node_exists(applicant.node_name):
            detail = "its VMNode was deleted"
        if detail:
            raise RefusedError(RENEWAL_SENTENCE, detail)

    def _find_problem(self, applicant: Applicant, renewal: Renewal) -> str | None:
        try:
            certificate = x509.load_pem_x509_certificate(renewal.certificate_pem.encode())
            key = check_key(certificate.public_key())
        except (ValueError, InvalidRequestError):
            return "not a certificate with a supported key"
        if not self._authority.has_issued(certificate):
            return "the certificate is not of this fleet"
        if not certificate.not_valid_before_utc <= self._authority.clock() < certificate.not_valid_after_utc:
            return "the certificate is past its time"
        if not is_node_certificate(certificate, applicant.node_name):
            return "the certificate is not this node's"
        content = applicant.signing_request.public_bytes(serialization.Encoding.DER)
        return None if is_signed_by(key, renewal.signature, content) else "the signature does not fit"


def is_node_certificate(certificate: x509.Certificate, node_name: str) -> bool:
    """Tell whether the certificate was issued for the daemon of this node, and for nothing else."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    subject = [(attribute.oid, attribute.value) for attribute in certificate.subject]
    return (
        subject == [(NameOID.COMMON_NAME, node_name)]
        and list(names) == [x509.DNSName(node_name)]
        and list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    )


def _find_pod_problem(pod: Mapping[str, Any] | None, uid: str, node_name: str) -> str | None:
    if pod is None:
        return "it does not exist"
    if pod["metadata"].get("uid") != uid:
        return "another pod has its name now"
    if pod["metadata"].get("deletionTimestamp"):
        return "it is being deleted"
    spec = pod.get("spec") or {}
    if spec.get("serviceAccountName") != NODE_SERVICE_ACCOUNT:
        return f"it runs as ServiceAccount {spec.get('serviceAccountName')}"
    return None if spec.get("nodeName") == node_name else f"it runs on {spec.get('nodeName')}"
