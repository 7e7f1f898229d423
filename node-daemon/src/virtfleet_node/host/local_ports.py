"""Ports of Open vSwitch that are the node's own, each alone in a network namespace: from there it reaches its guests.

The host's addresses, routes and listening sockets are in none of these, and two switches with the same subnet do not
meet.
"""

import ctypes
import os
import socket
import threading
from pathlib import Path
from typing import Final

from virtfleet_api.machine import ForwardPath
from virtfleet_node.core.desired.interfaces import INTEGRATION_BRIDGE
from virtfleet_node.core.forward import MARK, address_lines, is_ours, plug_words, route_lines
from virtfleet_node.host.programs import Programs

_SOCKET: Final = Path("/run/openvswitch/db.sock")
_NAMESPACES: Final = Path("run/netns")
_SECONDS: Final = 10
"""What ovs-vsctl waits for ovs-vswitchd to have done as it was told."""

_CLONE_NEWNET: Final = 0x40000000
"""See setns(2). Python has it from 3.12 on."""


class LocalPorts:
    """The node's own ports, by the name that device and namespace share."""

    def __init__(self, programs: Programs, switch: Path = _SOCKET, root: Path = Path("/")) -> None:
        """Take the socket of Open vSwitch's database, and the folder that is the programs' root."""
        self._programs = programs
        self._switch = switch
        self._namespaces = root / _NAMESPACES

    async def read(self) -> frozenset[str]:
        """Return what is there, as a whole or in part; ProgramError."""
        if not self._switch.exists():
            return frozenset()
        found = await self._ovs("--bare", "--columns=name", "find", "Interface", f"external_ids:{MARK[0]}={MARK[1]}")
        return frozenset((*found.split(), *await self._read_namespaces()))

    async def make(self, name: str, path: ForwardPath) -> None:
        """Make a port anew; ProgramError, and then part of it may be there."""
        await self.remove(name)
        await self._programs.run("ip", "netns", "add", name)
        await self._ovs(*plug_words(name, path))
        await self._programs.run("ip", "link", "set", "dev", name, "netns", name)
        await self._programs.run("ip", "-n", name, "-batch", "-", given=address_lines(name, path))

    async def remove(self, name: str) -> None:
        """Remove a port, or what there is of it; ProgramError."""
        await self._ovs("--if-exists", "del-port", INTEGRATION_BRIDGE, name)
        if name in await self._read_namespaces():
            await self._programs.run("ip", "netns", "delete", name)

    async def reach(self, name: str, path: ForwardPath) -> None:
        """Have a way from the port to the target; ProgramError."""
        if lines := route_lines(name, path):
            await self._programs.run("ip", "-n", name, "-batch", "-", given=lines)

    def open_socket(self, name: str, family: int) -> socket.socket:
        """Return a TCP socket that is in the port's namespace, wherever it is used; OSError. Blocks for a moment."""
        made: list[socket.socket | OSError] = []

        def enter() -> None:
            try:
                made.append(_socket_in(self._namespaces / name, family))
            except OSError as error:
                made.append(error)

        # Only this thread enters, and it ends there: nothing else is ever done in the namespace.
        thread = threading.Thread(target=enter, name=f"socket in {name}")
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    async def _read_namespaces(self) -> frozenset[str]:
        listed = (await self._programs.run("ip", "netns", "list")).splitlines()
        return frozenset(name for line in listed if line and is_ours(name := line.split()[0]))

    async def _ovs(self, *words: str) -> str:
        return await self._programs.run("ovs-vsctl", f"--db=unix:{self._switch}", f"--timeout={_SECONDS}", *words)


def _socket_in(namespace: Path, family: int) -> socket.socket:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")
    finally:
        os.close(descriptor)
    return socket.socket(family, socket.SOCK_STREAM)
