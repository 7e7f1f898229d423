"""The limit towards a network card, as libvirt takes it and shows it."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class CardLimit:
    """libvirt's <inbound>; 0 everywhere is no limit."""

    average: int = 0
    """Kilobytes a second."""
    peak: int = 0
    """Kilobytes a second."""
    burst: int = 0
    """KiB."""


NO_LIMIT: Final = CardLimit()
