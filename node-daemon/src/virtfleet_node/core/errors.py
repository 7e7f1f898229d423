"""The errors a daemon answers with. Errors of libvirt, file systems and peers are converted to these at the border.

NodeError
├── InvalidError       the document cannot be served as it is; repeating it is of no use
├── NotFoundError      no such machine, image or console
├── ConflictError      the state of things forbids it now
│   └── PoolFullError  a pool takes nothing new
└── UnavailableError   the hypervisor does not answer; the same request may succeed later
"""

from typing import ClassVar

from virtfleet_api.node_api import ProblemReason


class NodeError(Exception):
    """A refusal with a sentence for the operator's condition."""

    reason: ClassVar[ProblemReason]


class InvalidError(NodeError):
    """The document cannot be served as it is."""

    reason = ProblemReason.INVALID


class NotFoundError(NodeError):
    """There is no such machine, image or console."""

    reason = ProblemReason.NOT_FOUND


class ConflictError(NodeError):
    """The state of things forbids it now."""

    reason = ProblemReason.CONFLICT


class PoolFullError(ConflictError):
    """A pool takes nothing new; the same will be done once there is room."""


class UnavailableError(NodeError):
    """The hypervisor does not answer."""

    reason = ProblemReason.UNAVAILABLE
