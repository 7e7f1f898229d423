"""The guard against operators that have lost their leadership: the highest epoch seen, kept across restarts."""

import logging
import os
from pathlib import Path
from typing import Final

from virtfleet_api.node_api import EPOCH_HEADER, ProblemReason
from virtfleet_node.core.errors import InvalidError, NodeError, UnavailableError

_LOG = logging.getLogger(__name__)

_DIGITS: Final = 18
"""Digits of the largest epoch: it fits 64 bits, and Kubernetes counts leaseTransitions with 32."""


class StaleEpochError(NodeError):
    """The instruction comes from an operator that another has followed."""

    reason = ProblemReason.STALE_EPOCH


class EpochFileError(Exception):
    """The stored epoch cannot be read. Guessing it could let an operator act whose time is over."""


class EpochGuard:
    """Refuses an epoch lower than the highest one seen. Calls block for an fsync only when the epoch rises."""

    def __init__(self, path: Path) -> None:
        """Read the stored epoch; EpochFileError."""
        self._path = path
        self._highest = _read(path)

    @property
    def highest(self) -> int:
        """Return the highest epoch seen."""
        return self._highest

    def admit(self, header: str | None) -> None:
        """Accept the epoch of an instruction; StaleEpochError, InvalidError, UnavailableError if it cannot be kept."""
        epoch = _parse(header)
        if epoch is None:
            raise InvalidError(f"The header {EPOCH_HEADER} must hold the leader's epoch, a whole number.")
        if epoch < self._highest:
            raise StaleEpochError(
                f"Epoch {epoch} is over: an operator with epoch {self._highest} has taken the lead. Stop this one."
            )
        if epoch > self._highest:
            self._raise_to(epoch)

    def _raise_to(self, epoch: int) -> None:
        _LOG.info("Following a new leader", extra={"action": "RaiseEpoch", "epoch": epoch})
        try:
            _store(self._path, epoch)
        except OSError as error:
            raise UnavailableError(f"The epoch cannot be kept in the daemon's state directory: {error}.") from error
        self._highest = epoch


def _parse(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        return None
    return int(text)


def _read(path: Path) -> int:
    try:
        epoch = _parse(path.read_text(errors="replace").strip())
    except FileNotFoundError:
        return 0
    if epoch is None:
        raise EpochFileError(
            f"{path} does not hold an epoch. Write the leaseTransitions of the operator's Lease into it."
        )
    return epoch


def _store(path: Path, epoch: int) -> None:
    """Write the epoch so that neither a crash nor a power failure can bring an older one back."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(str(epoch))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the names in a directory survive a power failure: see fsync(2)."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
