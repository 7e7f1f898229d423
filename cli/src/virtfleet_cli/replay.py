"""What a console has missed while there was no connection, found in the history that its node keeps. Pure."""

from typing import Final

KEPT_BYTES: Final = 4096
"""How much of what was shown is kept to be found again: two screens."""

SURE_BYTES: Final = 32
"""A shorter piece, such as a prompt, may be anywhere in a history."""


def keep_shown(shown: bytes, data: bytes) -> bytes:
    """Return the end of what was shown, with what is shown now."""
    return (shown + data)[-KEPT_BYTES:]


def find_missed(history: bytes, shown: bytes) -> bytes | None:
    """Return what comes in the history after what was shown; None when that is no longer in it.

    The longest end of it that is found counts, where it is found last. Before the first output everything is missed.
    """
    if not shown:
        return history
    # Backwards, since only `find` takes a time that no guest can make long.
    text, end = history[::-1], shown[::-1]
    least, most = 0, len(end)
    while least < most:
        size = (least + most + 1) // 2
        least, most = (size, most) if text.find(end[:size]) >= 0 else (least, size - 1)
    if least < min(len(shown), SURE_BYTES):
        return None
    return history[len(history) - text.find(end[:least]) :]


def count_overlap(before: bytes, after: bytes) -> int:
    """Return how many bytes at the beginning of `after` are the end of `before` as well."""
    return next((size for size in range(min(len(before), len(after)), 0, -1) if before.endswith(after[:size])), 0)
