"""Open vSwitch and ovn-controller of the host, by their own tools."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from virtfleet_node.core.network import Bridge, Command, SwitchState
from virtfleet_node.host.programs import ProgramError, Programs

_SOCKET: Final = Path("/run/openvswitch/db.sock")

_SECONDS: Final = 10
"""What ovs-vsctl waits for ovs-vswitchd to have done as it was told."""

_COLUMNS: Final = {
    "Open_vSwitch": "external_ids",
    "SSL": "private_key,certificate,ca_cert",
    "Bridge": "name,ports,external_ids,datapath_type",
    "Port": "_uuid,name",
}


class OpenVSwitch:
    """The Open vSwitch whose database is at a socket."""

    def __init__(self, programs: Programs, socket: Path = _SOCKET) -> None:
        self._programs = programs
        self._socket = socket

    @property
    def is_there(self) -> bool:
        """Tell whether this host has an Open vSwitch."""
        return self._socket.exists()

    async def read(self) -> SwitchState:
        """Return its configuration; ProgramError."""
        lists = (("--columns=" + columns, "list", table) for table, columns in _COLUMNS.items())
        printed = await self._run("--format=json", *_joined(lists))
        return _parse(printed)

    async def change(self, commands: tuple[Command, ...]) -> None:
        """Carry out commands in one transaction, and wait until ovs-vswitchd has; ProgramError."""
        await self._run(*_joined(commands))

    async def is_connected(self) -> bool:
        """Tell whether ovn-controller is connected to the southbound database."""
        try:
            printed = await self._programs.run("ovn-appctl", "--timeout=5", "-t", "ovn-controller", "connection-status")
        except ProgramError:
            return False  # it does not run
        return printed.strip() == "connected"

    async def _run(self, *words: str) -> str:
        return await self._programs.run("ovs-vsctl", f"--db=unix:{self._socket}", f"--timeout={_SECONDS}", *words)


def _joined(commands: "Iterator[Command] | tuple[Command, ...]") -> Iterator[str]:
    """Yield the words of commands with what separates them; options of a command precede it."""
    for command in commands:
        yield "--"
        yield from command


def _parse(printed: str) -> SwitchState:
    """Read the tables, which ovs-vsctl prints one after the other; ProgramError."""
    try:
        tables = dict(zip(_COLUMNS, _documents(printed), strict=True))
        roots, keys, bridges, ports = (tuple(_rows(tables[name])) for name in _COLUMNS)
        names = {row["_uuid"]: row["name"] for row in ports}
        return SwitchState(
            external_ids=roots[0]["external_ids"],
            ssl=tuple(keys[0].values()) if keys else None,
            bridges={row["name"]: _bridge(row, names) for row in bridges},
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ProgramError(f"ovs-vsctl printed what cannot be read ({type(error).__name__})") from error


def _bridge(row: Mapping[str, Any], names: Mapping[str, str]) -> Bridge:
    ports = row["ports"] if isinstance(row["ports"], frozenset) else frozenset({row["ports"]})
    return Bridge(
        ports=frozenset(names[port] for port in ports if port in names),
        external_ids=row["external_ids"],
        datapath=row["datapath_type"],
    )


def _documents(text: str) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), 0
    while (rest := text[position:].lstrip()) != "":
        found, length = decoder.raw_decode(rest)
        yield found
        position = len(text) - len(rest) + length


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    for row in table["data"]:
        yield {heading: _value(value) for heading, value in zip(table["headings"], row, strict=True)}


def _value(value: Any) -> Any:
    """Return a value of OVSDB's notation (RFC 7047): sets, maps and UUIDs are pairs that begin with their kind."""
    match value:
        case ["uuid", text]:
            return text
        case ["set", items]:
            return frozenset(map(_value, items))
        case ["map", pairs]:
            return {_value(key): _value(item) for key, item in pairs}
    return value
