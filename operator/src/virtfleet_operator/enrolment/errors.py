"""What can go wrong when a daemon asks for a certificate, and what each is answered with.

EnrolmentError
├── InvalidRequestError  400  the request cannot be served as it is
├── RefusedError         403  the proof does not hold; never says which part of it
├── BusyError            429  too many requests from there, or in all
└── AuthorityError       503  the fleet's certificate authority cannot be used
"""

from typing import ClassVar

from virtfleet_api.node_api import ProblemReason


class EnrolmentError(Exception):
    """No certificate was given; the text may be told to the peer."""

    status: ClassVar[int] = 503
    reason: ClassVar[ProblemReason] = ProblemReason.UNAVAILABLE


class InvalidRequestError(EnrolmentError):
    """The request cannot be served as it is."""

    status = 400
    reason = ProblemReason.INVALID


class RefusedError(EnrolmentError):
    """The proof does not hold. The peer is told the sentence; the detail is for the log alone."""

    status = 403
    reason = ProblemReason.FORBIDDEN

    def __init__(self, sentence: str, detail: str) -> None:
        super().__init__(sentence)
        self.detail = detail


class BusyError(EnrolmentError):
    """Too many requests."""

    status = 429


class AuthorityError(EnrolmentError):
    """The fleet's certificate authority cannot be used; only an administrator can repair it."""
