"""Why an import failed, and whether trying again is of use."""

from dataclasses import dataclass
from typing import Final

_FINAL: Final = frozenset({"ChecksumMismatch", "TooLarge", "UnsafeImage", "UnsupportedFormat", "TooManyRedirects"})
"""What the same address will most likely give again; tried again after an hour, in case the file was replaced."""

SLOW_RETRY_SECONDS: Final = 3600.0
ROOM_RETRY_SECONDS: Final = 15.0
"""A look at a pool costs nothing, and machines may wait for the image."""
_FIRST_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 300.0


@dataclass
class ImportFailedError(Exception):
    """An import failed. `reason` is a CamelCase word for a condition, `message` its sentence."""

    reason: str
    message: str

    def __str__(self) -> str:
        """Return the sentence."""
        return self.message

    @property
    def final(self) -> bool:
        """Tell whether what was downloaded so far is of no use."""
        return self.reason in _FINAL


def retry_seconds(failure: ImportFailedError, attempt: int) -> float:
    """Return how long to wait before the next attempt, the first being number 1."""
    if failure.final:
        return SLOW_RETRY_SECONDS
    if failure.reason == "PoolFull":
        return ROOM_RETRY_SECONDS
    return min(_FIRST_RETRY_SECONDS * 2.0 ** min(attempt - 1, 16), _LONGEST_RETRY_SECONDS)
