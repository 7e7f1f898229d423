"""A page about a machine, for people. Pure: objects in, text for the terminal out.

Guests, daemons and users wrote parts of it: nothing of it may reach the terminal as markup or as a control sequence.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from virtfleet_api.names import NODE_LABEL

Object = Mapping[str, Any]

_GOOD = {"Running": "green", "True": "green", "Paused": "yellow", "Stopped": "dim"}
_BAD = {"Crashed", "Invalid", "Unschedulable", "Unknown", "False"}


def clean(value: object) -> str:
    """Return text in which every control character has become visible."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def describe_machine(machine: Object, events: Sequence[Object], now: datetime) -> RenderableType:
    """Lay out the page."""
    spec, status = machine.get("spec") or {}, machine.get("status") or {}
    parts = [
        _section("", _overview(machine)),
        _list("Conditions", ("type", "status", "reason", "message"), status.get("conditions", ())),
        _section("Machine", _hardware(spec, status)),
        _list("Disks", ("name", "target", "capacity", "allocated", "pool", "source"), _disks(spec, status)),
        _list("Interfaces", ("name", "mac", "addresses", "model"), _interfaces(spec, status)),
        _section("Guest", ((name.capitalize(), said) for name, said in (status.get("guest") or {}).items())),
        _list("Events", ("age", "type", "reason", "message"), (_event(event, now) for event in events)),
    ]
    return Group(*(part for part in parts if part is not None))


def _overview(machine: Object) -> Iterable[tuple[str, object]]:
    meta, spec, status = machine["metadata"], machine.get("spec") or {}, machine.get("status") or {}
    yield "Name", meta["name"]
    yield "Namespace", meta.get("namespace", "")
    yield "Status", status.get("printableStatus") or "not reconciled yet"
    yield "Node", status.get("nodeName") or (meta.get("labels") or {}).get(NODE_LABEL)
    yield "Run strategy", spec.get("runStrategy", "Always")
    yield "Power state", spec.get("powerState")
    yield "Created", meta.get("creationTimestamp")
    yield "Deleted", meta.get("deletionTimestamp")
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        yield "Note", "The latest change of the spec has not been taken up yet."


def _hardware(spec: Object, status: Object) -> Iterable[tuple[str, object]]:
    running = status.get("machine") or {}
    yield "Class", spec.get("className")
    yield "vCPUs", (running.get("vcpus") or {}).get("current") or (spec.get("cpu") or {}).get("cores")
    yield "CPU model", running.get("cpuModel") or (spec.get("cpu") or {}).get("model")
    yield "Memory", (running.get("memory") or {}).get("current") or (spec.get("memory") or {}).get("guest")
    yield "Display", running.get("display")
    yield "Type", running.get("machineType") or spec.get("machineType")
    yield "UUID", running.get("uuid")
    yield "Started", running.get("startedAt")
    yield "Restarts", running.get("restarts")


def _disks(spec: Object, status: Object) -> Iterable[Object]:
    found = {disk.get("name"): disk for disk in status.get("disks", ())}
    for disk in spec.get("disks", ()):
        source = disk.get("source") or {}
        image = source.get("image") or {}
        where = "/".join(part for part in (image.get("namespace"), image.get("name")) if part)
        came_from = f"image {where}" if where else "blank"
        size = {"capacity": disk.get("size"), "pool": disk.get("pool"), "source": came_from}
        yield {"name": disk.get("name"), **size, **found.get(disk.get("name"), {})}


def _interfaces(spec: Object, status: Object) -> Iterable[Object]:
    found = {interface.get("name"): interface for interface in status.get("interfaces", ())}
    for network in spec.get("networks", ()):
        seen = found.get(network.get("name"), {})
        addresses = ", ".join(seen.get("ipAddresses", ()))
        mac = seen.get("mac") or network.get("macAddress")
        yield {"name": network.get("name"), "mac": mac, "addresses": addresses, "model": network.get("model")}


def _event(event: Object, now: datetime) -> Object:
    time = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return {**event, "age": age(datetime.fromisoformat(time), now) if time else ""}


def age(time: datetime, now: datetime) -> str:
    """Write how long ago a time was, as kubectl does: 42s, 7m, 3h, 12d."""
    seconds = max(0, int((now - time).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _section(title: str, rows: Iterable[tuple[str, object]]) -> RenderableType | None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, ""):
            grid.add_row(Text(clean(name)), _value(value))
    return _titled(title, grid) if grid.row_count else None


def _list(title: str, columns: Sequence[str], items: Iterable[Object]) -> RenderableType | None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for item in items:
        table.add_row(*(_value(item.get(column) if item.get(column) is not None else "") for column in columns))
    return _titled(title, table) if table.row_count else None


def _titled(title: str, body: Table) -> RenderableType:
    return Group(Text(""), Text(title, style="bold cyan"), Padding(body, (0, 0, 0, 2))) if title else body


def _value(value: object) -> Text:
    text = clean(value)
    return Text(text, style="red" if text in _BAD else _GOOD.get(text, ""))
