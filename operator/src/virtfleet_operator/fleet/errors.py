"""What can go wrong at a node. HTTP and parsing errors are converted here and never leave this package.

NodeError
├── NodeUnavailableError    no answer in time, no connection, or the daemon cannot serve now
├── StaleEpochError         another operator leads: this one must end
├── NodeRefusedError        the daemon refuses the instruction, and says why
└── NodeProtocolError       an answer that is too large or not what the interface says
"""

from virtfleet_api.node_api import ProblemReason


class NodeError(Exception):
    """A node did not do what it was asked for."""


class NodeUnavailableError(NodeError):
    """The node cannot be reached or cannot serve now."""


class StaleEpochError(NodeError):
    """The node has seen a newer leader."""


class NodeProtocolError(NodeError):
    """The node answers something that its interface does not have."""


class NodeRefusedError(NodeError):
    """The node refuses, for a reason that waiting does not cure."""

    def __init__(self, reason: ProblemReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
