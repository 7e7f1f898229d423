"""What can go wrong at the API server. The client's exceptions are converted here and never leave this package.

KubeError
├── NotFoundError      the object does not exist
├── ConflictError      somebody else wrote first, or the object exists already: read again, decide again
├── RefusedError       missing rights: only an administrator can change that
├── InvalidError       the API server refuses the content: retrying the same is useless
└── UnavailableError   no answer in time, overload, a failing server, a kind it does not know (yet): try again later
"""

import json
from typing import Final


class KubeError(Exception):
    """The API server did not do what it was asked for."""


class NotFoundError(KubeError):
    """The object does not exist."""


class ConflictError(KubeError):
    """Somebody else wrote first, or the object exists already."""


class RefusedError(KubeError):
    """The operator lacks a right; operator/rbac.yaml lists what it needs."""


class InvalidError(KubeError):
    """The API server refuses the content."""


class UnavailableError(KubeError):
    """No answer in time, or a server that cannot serve now."""


_BY_STATUS: Final[dict[int, type[KubeError]]] = {
    400: InvalidError,
    401: RefusedError,
    403: RefusedError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    422: InvalidError,
}


def build_error(status: int, what: str, body: bytes) -> KubeError:
    """Return the error for an HTTP status, with the sentence of the server's Status object."""
    kind = _BY_STATUS.get(status, UnavailableError)
    if kind is NotFoundError and not _is_status(body):
        kind = UnavailableError  # a server that has just started does not know its custom resources yet
    return kind(f"{what}: {status}: {_read_message(body)}")


def _is_status(body: bytes) -> bool:
    """Tell whether the server's answer is a Status object: of an object that is not there, it always is."""
    try:
        return bool(json.loads(body).get("kind") == "Status")
    except (ValueError, AttributeError):
        return False


def _read_message(body: bytes) -> str:
    """Return the message of a Status object, or the start of whatever came instead of one."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
