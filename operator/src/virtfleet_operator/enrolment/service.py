"""Enrolling: a request with a proof in, a node's certificate out. It knows no HTTP.

The order matters. The proof is used up first, then the VMNode is written, then the certificate is given out: whatever
is lost on the way, no certificate is out without its VMNode, and the daemon asks again with the same key.
"""

import logging
import re
from collections.abc import Collection, Mapping
from typing import Final

from virtfleet_api.enrol import EnrolReply, EnrolRequest
from virtfleet_api.names import GROUP
from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.certificates import node_purpose
from virtfleet_operator.enrolment.errors import InvalidRequestError, RefusedError
from virtfleet_operator.enrolment.ovn_trust import Southbound
from virtfleet_operator.enrolment.ports import Cluster, OnEnrolled
from virtfleet_operator.enrolment.proofs import Applicant, JoinTokenProof, RenewalProof, ServiceAccountProof
from virtfleet_operator.enrolment.signing_request import check_key, parse_signing_request

log = logging.getLogger(__name__)

LONGEST_NAME: Final = 63
"""The name becomes the value of the label virtfleet.io/node."""

_LABEL_NAME: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class Enrolment:
    """Signs certificates for daemons that prove who they are."""

    def __init__(
        self,
        cluster: Cluster,
        authority: Authority,
        on_enrolled: OnEnrolled,
        *,
        namespace: str,
        reserved: Collection[str] = (),
        southbound: Southbound | None = None,
    ) -> None:
        """Serve enrolment; `reserved` are names of the operator's own servers, which no node may have."""
        self._southbound = southbound
        self._authority = authority
        self._on_enrolled = on_enrolled
        self._reserved = frozenset(reserved)
        self._join = JoinTokenProof(cluster, authority)
        self._account = ServiceAccountProof(cluster, namespace)
        self._renewal = RenewalProof(cluster, authority)

    async def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Check the request and its proof, have the VMNode written, and sign; EnrolmentError."""
        proof = parse_proof_kind(request)
        self._check_name(request.node_name)
        check_labels(request.labels)
        applicant = Applicant(request.node_name, parse_signing_request(request.csr_pem))
        facts = {"action": "Enrol", "node": request.node_name, "address": request.address, "proof": proof}
        try:
            await self._check_proof(applicant, request)
        except RefusedError as error:
            log.warning("Refusing to enrol a node", extra={**facts, "reason": error.detail})
            raise
        log.info("Enrolling a node", extra=facts)
        await self._on_enrolled(request.node_name, request.address, request.labels)
        key = check_key(applicant.signing_request.public_key())
        pem = self._authority.sign(key, node_purpose(request.node_name)).decode()
        access = self._southbound.give_access(request.node_name, key) if self._southbound else None
        return EnrolReply(certificate_pem=pem, ca_pem=self._authority.ca_pem, southbound=access)

    async def _check_proof(self, applicant: Applicant, request: EnrolRequest) -> None:
        if request.join_token is not None:
            await self._join.check(applicant, request.join_token)
        elif request.service_account_token is not None:
            await self._account.check(applicant, request.service_account_token)
        elif request.renewal is not None:
            await self._renewal.check(applicant, request.renewal)

    def _check_name(self, name: str) -> None:
        if len(name) > LONGEST_NAME:
            raise InvalidRequestError(f"nodeName has {len(name)} characters: use at most {LONGEST_NAME}.")
        if name in self._reserved:
            # The node could else serve as the operator, towards daemons and the API server.
            raise InvalidRequestError(f"nodeName {name} is a name of the operator: give the node another one.")


def parse_proof_kind(request: EnrolRequest) -> str:
    """Return the name of the one proof; InvalidRequestError if there is none or more than one."""
    proofs = {
        "joinToken": request.join_token,
        "serviceAccountToken": request.service_account_token,
        "renewal": request.renewal,
    }
    given = [name for name, proof in proofs.items() if proof is not None]
    if len(given) != 1:
        raise InvalidRequestError(f"Give exactly one of {', '.join(proofs)}; {len(given)} are given.")
    return given[0]


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that Kubernetes would refuse, or that are the operator's to write: InvalidRequestError."""
    for name, value in labels.items():
        if not _LABEL_NAME.fullmatch(name) or not _LABEL_VALUE.fullmatch(value):
            raise InvalidRequestError(f"labels: {name!r:.100}: {value!r:.100} is not a valid Kubernetes label.")
        if name.partition("/")[0] == GROUP:
            raise InvalidRequestError(f"labels: {name:.100} is written by the operator alone: remove it.")
