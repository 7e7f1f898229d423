"""When what a guest must agree to is asked for again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from virtfleet_node.core.actions import Action
from virtfleet_node.core.observed import HOLDS_AFTER, Observed

ASK_AGAIN: Final = timedelta(seconds=20)
"""A guest that has not let go of a device is asked again: it may have been booting, or the disk was mounted."""


@dataclass(frozen=True)
class Change:
    """An action, or a moment before which it is not due."""

    action: Action
    due: datetime | None = None


def ask(action: Action, key: str, observed: Observed, now: datetime) -> Change:
    """Return a request to the guest for what `Observed.asked` knows as `key`."""
    return Change(action, _due(observed, key, now))


def _due(observed: Observed, key: str, now: datetime) -> datetime | None:
    """Return when to ask the guest again, or to tell that it holds on; None for now."""
    asking = observed.asked.get(key)
    if asking is None or now >= asking.last + ASK_AGAIN:
        return None
    told = asking.first + HOLDS_AFTER
    return told if now < told else asking.last + ASK_AGAIN
