"""What a panel shows, in few words."""

from dataclasses import dataclass
from typing import Any, Final

ROW_HEIGHT: Final = 8
RATE: Final = "[$__rate_interval]"
"""Grafana's own choice of a range, long enough for the interval of scrapes."""

BAD_FROM: Final = {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": 1}]}
GOOD_FROM: Final = {"mode": "absolute", "steps": [{"color": "red", "value": None}, {"color": "green", "value": 1}]}
_SHARE: Final = {
    "mode": "absolute",
    "steps": [
        {"color": "green", "value": None},
        {"color": "orange", "value": 0.8},
        {"color": "red", "value": 0.95},
    ],
}


@dataclass(frozen=True)
class Panel:
    """A panel: what it is called, and its queries with their legends."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    width: int = 12
    type: str = "timeseries"
    stacked: bool = False
    thresholds: "dict[str, Any] | None" = None
    text: str = ""

    @property
    def height(self) -> int:
        """Return the rows of Grafana's grid that it takes."""
        return ROW_HEIGHT // 2 if self.type == "stat" else ROW_HEIGHT


def stat(title: str, query: str, unit: str = "short", thresholds: "dict[str, Any] | None" = None) -> Panel:
    """Return a panel of one number."""
    return Panel(title, ((query, ""),), unit, 4, "stat", thresholds=thresholds)


def word(title: str, query: str, legend: str) -> Panel:
    """Show a label's value in place of the number."""
    return Panel(title, ((query, legend),), "none", 4, "stat", text="name")


def shares(title: str, query: str, legend: str) -> Panel:
    """Return a panel of bars, from nothing to all."""
    return Panel(title, ((query, legend),), "percentunit", 12, "bargauge", thresholds=_SHARE)
