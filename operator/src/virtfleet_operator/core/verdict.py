"""What the core answers when it cannot say yes. The texts are for users, in admission and in conditions alike.

Values of users are quoted by `quote`: bounded, and without control or invisible characters, because they end up in
terminals and logs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_MAX_QUOTED: Final = 48  # enough to recognise a value, little enough for a sentence
_MAX_PROBLEMS: Final = 8  # what a person repairs in one go; the rest is counted
_MAX_MESSAGE: Final = 2048  # conditions may hold 32768, Events 1024 (cut by the API server's client)


def quote(value: object) -> str:
    """Quote a user's value on one line, cut to a readable length."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…")


def plain(text: str, limit: int = 512) -> str:
    """Return text of a peer or guest on one line: bounded, and without control or invisible characters."""
    kept = "".join(c if c.isprintable() else " " for c in text[: 2 * limit])
    return " ".join(kept.split())[:limit]


def join_problems(problems: Iterable[str]) -> str:
    """Join problems to the one text that admission and the condition Ready both say."""
    listed = tuple(problems)
    said = "; ".join(listed[:_MAX_PROBLEMS])[:_MAX_MESSAGE]
    more = len(listed) - _MAX_PROBLEMS
    return f"{said}; and {more} more" if more > 0 else said


@dataclass(frozen=True, slots=True)
class Invalid:
    """The spec cannot be served until its author changes it."""

    problems: tuple[str, ...]

    @property
    def message(self) -> str:
        """Return the problems as one bounded text."""
        return join_problems(self.problems)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that the object needs is not there yet; it goes on by itself once it is."""

    reason: str
    message: str
    watched: bool = True
    """Whether the operator is told when it comes; else it has to look again."""


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node can take the machine; it goes on by itself once one can."""

    message: str
