"""The guard against operators that have lost their leadership: the highest epoch seen, kept across restarts."""

import os
from pathlib import Path

from virtfleet_api.node_api import ProblemReason
from virtfleet_node.core.errors import InvalidError, NodeError


class StaleEpochError(NodeError):
    """The instruction comes from an operator that another has followed."""

    reason = ProblemReason.STALE_EPOCH


class EpochGuard:
    """Refuses an epoch lower than the highest one seen. Calls block for an fsync only when the epoch rises."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._highest = int(path.read_text()) if path.exists() else 0

    def admit(self, header: str | None) -> None:
        """Accept the epoch of an instruction, or raise StaleEpochError or InvalidError."""
        if header is None or not (header.isascii() and header.isdigit() and len(header) <= 18):  # noqa: PLR2004 -- fits 64 bits
            raise InvalidError("The header Virtfleet-Epoch must hold the leader's epoch, a whole number.")
        epoch = int(header)
        if epoch < self._highest:
            raise StaleEpochError(
                f"Epoch {epoch} is over: an operator with epoch {self._highest} has taken the lead. Stop this one."
            )
        if epoch > self._highest:
            self._store(epoch)
            self._highest = epoch

    def _store(self, epoch: int) -> None:
        """Write the epoch so that neither a crash nor a power failure can bring an older one back."""
        partial = self._path.with_suffix(".partial")
        with partial.open("w") as file:
            file.write(str(epoch))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
