"""The snapshots of machines as a tree in a table. Pure: objects in, text for the terminal out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from virtfleet_api.vm_snapshot import SnapshotPhase
from virtfleet_cli.describe import age, clean
from virtfleet_cli.snapshot import condition_message, size_text

Object = Mapping[str, Any]

HEADINGS: Final = ("MACHINE", "SNAPSHOT", "PHASE", "SIZE", "PAUSE", "AGE", "CAPTURED", "MESSAGE")
_ABSENT: Final = "-"
_GAP: Final = "   "


def render_snapshots(snapshots: Iterable[Object], now: datetime) -> str:
    """Return the table, aligned as kubectl aligns: each snapshot once, below the one that it follows."""
    rows = [HEADINGS, *(_row(snapshot, branch, now) for snapshot, branch in lay_out(list(snapshots)))]
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def lay_out(snapshots: Sequence[Object]) -> list[tuple[Object, str]]:
    """Return each snapshot once, with the branch that is drawn before its name; parents come before children.

    A parent that is not among them is as none. A ring of parents, which nobody makes, begins with its oldest.
    """
    known = {_name(snapshot): snapshot for snapshot in snapshots}
    roots: list[Object] = []
    children: dict[str, list[Object]] = {}
    for snapshot in sorted(known.values(), key=_order):
        parent = (snapshot.get("status") or {}).get("parent")
        (children.setdefault(parent, []) if parent in known else roots).append(snapshot)
    laid: dict[str, tuple[Object, str]] = {}
    for root in [*roots, *sorted(known.values(), key=_order)]:
        if _name(root) not in laid:
            _lay_below(root, children, laid)
    return list(laid.values())


def _lay_below(root: Object, children: Mapping[str, Sequence[Object]], laid: dict[str, tuple[Object, str]]) -> None:
    """Add a snapshot and all below it, depth first; without recursion, since rows may follow one another for long."""
    laid[_name(root)] = (root, "")
    waiting = list(_branches(root, children, laid, ""))
    while waiting:
        snapshot, branch, indent = waiting.pop()
        if _name(snapshot) not in laid:
            laid[_name(snapshot)] = (snapshot, branch)
            waiting.extend(_branches(snapshot, children, laid, indent))


def _branches(
    parent: Object, children: Mapping[str, Sequence[Object]], laid: Mapping[str, object], indent: str
) -> Iterator[tuple[Object, str, str]]:
    """Yield the children from the last to the first: each with its branch, and what is drawn before its children."""
    below = [child for child in children.get(_name(parent), ()) if _name(child) not in laid]
    for number, child in enumerate(reversed(below)):
        yield child, indent + ("├─" if number else "└─"), indent + ("│ " if number else "  ")


def _row(snapshot: Object, branch: str, now: datetime) -> tuple[str, ...]:
    status = snapshot.get("status") or {}
    pause, taken = status.get("pauseMilliseconds"), _time(snapshot)
    phase = status.get("phase") or SnapshotPhase.PENDING
    fields = (
        snapshot["spec"]["virtualMachine"],
        branch + _name(snapshot),
        f"{phase} {status['progress']}" if status.get("progress") else phase,
        size_text(status.get("size")),
        "" if pause is None else f"{pause}ms",
        age(datetime.fromisoformat(taken), now) if taken else "",
        ",".join(status.get("indications") or ()),
    )
    return (*(clean(field) if field else _ABSENT for field in fields), condition_message(snapshot))


def _name(snapshot: Object) -> str:
    name: str = snapshot["metadata"]["name"]
    return name


def _order(snapshot: Object) -> tuple[str, str, str]:
    return snapshot["spec"]["virtualMachine"], _time(snapshot), _name(snapshot)


def _time(snapshot: Object) -> str:
    """Return the captured instant, or when the capture was asked for."""
    return (snapshot.get("status") or {}).get("creationTime") or snapshot["metadata"].get("creationTimestamp") or ""
