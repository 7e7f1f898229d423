"""How the node is plugged into a switch to reach its own guests: names, and the words of the programs that do it."""

import hashlib
import json
from typing import Final

from virtfleet_api.machine import ForwardPath, Hardware
from virtfleet_node.core.desired.interfaces import INTEGRATION_BRIDGE

MARK: Final = ("virtfleet", "forward")
"""external_ids of the interfaces that we have made."""

PREFIX: Final = "vmfwd"
_NAME_LENGTH: Final = 15
"""Of a network device."""

Words = tuple[str, ...]


def device_name(port: str) -> str:
    """Return the name of the device and of its network namespace, for a logical port."""
    return PREFIX + hashlib.sha256(port.encode()).hexdigest()[: _NAME_LENGTH - len(PREFIX)]


def is_ours(name: str) -> bool:
    """Tell whether a namespace has a name that we give."""
    digits = name.removeprefix(PREFIX)
    return len(name) == _NAME_LENGTH and digits != name and all(digit in "0123456789abcdef" for digit in digits)


def find_path(hardware: Hardware) -> ForwardPath | None:
    """Return how a guest is reached: by its first card that can be."""
    return next((card.forward for card in hardware.interfaces if card.forward is not None), None)


def plug_words(name: str, path: ForwardPath) -> Words:
    """Return what has Open vSwitch make the device, as words of ovs-vsctl."""
    return (
        *("add-port", INTEGRATION_BRIDGE, name, "--", "set", "Interface", name, "type=internal"),
        f"mac={json.dumps(path.mac)}",
        f"external_ids:iface-id={json.dumps(path.port)}",
        f"external_ids:{MARK[0]}={MARK[1]}",
    )


def address_lines(name: str, path: ForwardPath) -> str:
    """Return what gives the device its addresses, as lines for `ip -batch`."""
    duplicates = " nodad" if path.source.version == 6 else ""  # noqa: PLR2004 -- IP's version
    lines = (
        f"link set dev {name} address {path.mac}",
        f"address add {path.source} dev {name}{duplicates}",
        f"link set dev {name} up",
    )
    return "\n".join(lines) + "\n"


def route_lines(name: str, path: ForwardPath) -> str:
    """Return what makes a target reachable that is not in the source's own network; none when it is."""
    if path.target in path.source.network:
        return ""
    return f"route replace {path.target} dev {name}\n"
