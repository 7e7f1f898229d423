"""The host's network devices, by iproute2."""

import json
from collections.abc import Mapping
from typing import Any

from virtfleet_node.core.network import Device
from virtfleet_node.host.programs import ProgramError, Programs


class Devices:
    """The devices of the network namespace that programs are started in."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    async def read(self) -> dict[str, Device]:
        """Return the devices by name; ProgramError."""
        try:
            found = json.loads(await self._programs.run("ip", "-json", "address", "show"))
            return {link["ifname"]: _device(link) for link in found if link}
        except (ValueError, KeyError, TypeError) as error:
            raise ProgramError(f"ip printed what cannot be read ({type(error).__name__})") from error

    async def set_up(self, name: str) -> None:
        """Switch a device on; ProgramError."""
        await self._programs.run("ip", "link", "set", "dev", name, "up")


def _device(link: Mapping[str, Any]) -> Device:
    addresses = (entry for entry in link.get("addr_info", ()) if entry.get("scope") != "link")
    return Device(
        master=link.get("master", ""),
        addresses=tuple(f"{entry['local']}/{entry['prefixlen']}" for entry in addresses),
        is_up="UP" in link.get("flags", ()),
    )
