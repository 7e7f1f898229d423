"""The ports of machines as a table. Pure: objects in, text for the terminal out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from virtfleet_api.node_api import InterfaceTraffic
from virtfleet_cli.describe import clean

HEADINGS: Final = ("MACHINE", "INTERFACE", "SWITCH", "MAC", "ADDRESSES", "STATE", "RECEIVED", "SENT", "DROPPED")
_ABSENT: Final = "-"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP: Final = 1024


@dataclass(frozen=True)
class Machine:
    """A machine with what its node counts."""

    object: Mapping[str, Any]
    counters: tuple[InterfaceTraffic, ...] = ()
    """None of a machine that does not run, or whose node does not answer."""


def render_ports(machines: Iterable[Machine]) -> str:
    """Return the table, aligned as kubectl aligns."""
    rows = [HEADINGS, *(row for machine in machines for row in _rows(machine))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _rows(machine: Machine) -> Iterator[tuple[str, ...]]:
    """Yield a row for each card of the status, or of the spec while there is no status."""
    counted = {counters.name: counters for counters in machine.counters}
    status, spec = machine.object.get("status") or {}, machine.object.get("spec") or {}
    shown = {card.get("name"): card for card in status.get("interfaces") or ()}
    for asked in spec.get("networks") or ():
        card = shown.get(asked.get("name"), {})
        counters = counted.get(str(asked.get("name")))
        fields = (
            machine.object["metadata"]["name"],
            asked.get("name"),
            card.get("switch") or asked.get("switch") or "user",
            card.get("mac") or asked.get("macAddress"),
            ",".join(card.get("ipAddresses") or ()),
            card.get("state"),
            amount(counters.received_bytes if counters else None),
            amount(counters.sent_bytes if counters else None),
            _drops(counters),
        )
        yield tuple(clean(field) if field else _ABSENT for field in fields)


def _drops(counters: InterfaceTraffic | None) -> str:
    counted = (counters.received_drops, counters.sent_drops) if counters else ()
    known = [count for count in counted if count is not None]
    return str(sum(known)) if known else ""


def amount(count: int | None) -> str:
    """Write a number of bytes as people read it: 0B, 640B, 1.5KiB, 12GiB; nothing if nobody counts."""
    if count is None:
        return ""
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    text = f"{value:.1f}" if value < 10 and unit != "B" else f"{value:.0f}"  # noqa: PLR2004 -- one digit and a part
    return f"{text.removesuffix('.0')}{unit}"
