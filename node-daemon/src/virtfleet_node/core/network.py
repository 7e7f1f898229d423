"""What of a node's Open vSwitch differs from what is wanted, as words for ovs-vsctl.

Ours are: how ovn-controller reaches the southbound database, the bridges of uplinks that carry our mark, and the
names by which OVN knows them. Everything else is left as it is found.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from virtfleet_api.node_network import NodeNetwork, UplinkNetwork, uplink_network_name
from virtfleet_api.report import UplinkReport

MARK: Final = ("virtfleet", "uplink")
"""external_ids of the bridges that we have made."""

MAPPINGS: Final = "ovn-bridge-mappings"
REMOTE: Final = "ovn-remote"
DATAPATH: Final = "ovn-bridge-datapath-type"

_NAME_LENGTH: Final = 15
"""Of a network device."""

_RESERVED: Final = frozenset({"br-int"})
"""ovn-controller's own."""

Command = tuple[str, ...]
"""A command of ovs-vsctl's."""


@dataclass(frozen=True)
class Southbound:
    """How ovn-controller reaches OVN's southbound database. Paths of files that the node holds."""

    remote: str
    private_key: str
    certificate: str
    ca: str


@dataclass(frozen=True)
class Bridge:
    """A bridge of Open vSwitch."""

    ports: frozenset[str] = frozenset()
    external_ids: Mapping[str, str] = field(default_factory=dict)
    datapath: str = ""

    @property
    def is_ours(self) -> bool:
        """Tell whether we have made it."""
        return self.external_ids.get(MARK[0]) == MARK[1]


@dataclass(frozen=True)
class SwitchState:
    """Open vSwitch's configuration, as far as it matters here."""

    external_ids: Mapping[str, str] = field(default_factory=dict)
    ssl: tuple[str, str, str] | None = None
    """Paths of private key, certificate and authority."""
    bridges: Mapping[str, Bridge] = field(default_factory=dict)

    @property
    def datapath(self) -> str:
        """Return the node's type of datapath."""
        return self.external_ids.get(DATAPATH) or "system"


@dataclass(frozen=True)
class Device:
    """A network device of the host."""

    master: str = ""
    """What it is part of: a bridge or bond of the kernel's, or Open vSwitch itself."""
    addresses: tuple[str, ...] = ()
    """Addresses that the host itself uses, without link-local ones."""
    is_up: bool = True


@dataclass(frozen=True)
class Transaction:
    """Commands that are carried out together or not at all."""

    commands: tuple[Command, ...]
    interface: str = ""
    """The uplink that they are for."""


@dataclass(frozen=True)
class Decision:
    """What to do, and what stands in the way."""

    transactions: tuple[Transaction, ...] = ()
    down: tuple[str, ...] = ()
    """Devices of uplinks that must be set up."""
    uplinks: tuple[UplinkReport, ...] = ()


def bridge_name(interface: str) -> str:
    """Return the name of the bridge of an uplink: the device's own where it fits and is free, else a digest of it."""
    plain = f"br-{interface}"
    if len(plain) <= _NAME_LENGTH and plain not in _RESERVED:
        return plain
    return f"br-{hashlib.sha256(interface.encode()).hexdigest()[: _NAME_LENGTH - 3]}"


def decide(
    wanted: NodeNetwork | None, southbound: Southbound | None, seen: SwitchState, devices: Mapping[str, Device]
) -> Decision:
    """Return what brings Open vSwitch to what is wanted; nothing once it is there.

    As long as nothing is known of what is wanted, the uplinks that are there stay.
    """
    if wanted is None:
        return Decision(tuple(_connect(southbound, seen)))
    interfaces = tuple(dict.fromkeys(uplink.interface for uplink in wanted.uplinks))
    problems = {name: _problem(name, seen, devices) for name in interfaces}
    good = tuple(name for name in interfaces if not problems[name])
    made = (Transaction(commands, name) for name in good if (commands := _make(name, seen)))
    return Decision(
        transactions=(
            *_connect(southbound, seen),
            *made,
            *_map(wanted, good, seen),
            *_remove(interfaces, seen),
        ),
        down=tuple(name for name in good if not devices[name].is_up),
        uplinks=tuple(UplinkReport(interface=name, problem=problems[name]) for name in interfaces),
    )


def _problem(interface: str, seen: SwitchState, devices: Mapping[str, Device]) -> str:
    """Say why a device cannot be the uplink; empty when it can."""
    bridge, device = bridge_name(interface), devices.get(interface)
    if device is None:
        return f"This node has no network device {interface}: name one that each node has."
    if (there := seen.bridges.get(bridge)) is not None and not there.is_ours:
        return f"Open vSwitch has a bridge {bridge} that virtfleet has not made: remove it, or rename it."
    if there is not None and interface in there.ports:
        return ""
    return _unusable(interface, device, seen)


def _unusable(interface: str, device: Device, seen: SwitchState) -> str:
    """Say why a device cannot be plugged into a bridge; empty when it can."""
    other = next((name for name, bridge in seen.bridges.items() if interface in bridge.ports), device.master)
    if other:
        return f"{interface} is part of {other} already: take it out of there, or name another device."
    if device.addresses:
        said = ", ".join(device.addresses[:2])
        return f"The node itself uses {interface} ({said}) and would be cut off: name a device without addresses."
    return ""


def _connect(southbound: Southbound | None, seen: SwitchState) -> Iterator[Transaction]:
    if southbound is None:
        return
    files = (southbound.private_key, southbound.certificate, southbound.ca)
    if seen.ssl != files:
        yield Transaction((("set-ssl", *files),))
    if seen.external_ids.get(REMOTE) != southbound.remote:
        yield Transaction((_set_external_id(REMOTE, southbound.remote),))


def _make(interface: str, seen: SwitchState) -> tuple[Command, ...]:
    """Return the transaction that makes an uplink's bridge, or puts right what is wrong with it."""
    name = bridge_name(interface)
    there = seen.bridges.get(name)
    if there is None:
        mark = f"external_ids:{MARK[0]}={MARK[1]}"
        made: Command = ("set", "Bridge", name, f"datapath_type={seen.datapath}", mark)
        return (("add-br", name), made, ("add-port", name, interface))
    return (
        *((("set", "Bridge", name, f"datapath_type={seen.datapath}"),) if _differs(there, seen) else ()),
        *(("del-port", name, port) for port in sorted(_strange(there, name, interface))),
        *((("add-port", name, interface),) if interface not in there.ports else ()),
    )


def _differs(bridge: Bridge, seen: SwitchState) -> bool:
    return (bridge.datapath or "system") != seen.datapath


def _strange(bridge: Bridge, name: str, interface: str) -> frozenset[str]:
    """Return ports that do not belong on an uplink's bridge; ovn-controller's own lead to the integration bridge."""
    return frozenset(port for port in bridge.ports if port not in {name, interface} and not port.startswith("patch-"))


def _remove(interfaces: tuple[str, ...], seen: SwitchState) -> Iterator[Transaction]:
    wanted = {bridge_name(interface) for interface in interfaces}
    for name, bridge in sorted(seen.bridges.items()):
        if bridge.is_ours and name not in wanted:
            yield Transaction((("del-br", name),))


def _map(wanted: NodeNetwork, good: tuple[str, ...], seen: SwitchState) -> Iterator[Transaction]:
    """Name the bridges to OVN; names that are not of our kind stay."""
    before = seen.external_ids.get(MAPPINGS, "")
    ours = uplink_network_name("")
    others = tuple(pair for pair in before.split(",") if pair and not pair.startswith(ours))
    kept = {pair.partition(":")[0] for pair in others}
    named = (uplink for uplink in wanted.uplinks if uplink.interface in good and uplink.network_name not in kept)
    after = ",".join((*others, *dict.fromkeys(_pair(uplink) for uplink in named)))
    if after != before:
        removal: Command = ("remove", "Open_vSwitch", ".", "external_ids", MAPPINGS)
        yield Transaction((_set_external_id(MAPPINGS, after) if after else removal,))


def _pair(uplink: UplinkNetwork) -> str:
    return f"{uplink.network_name}:{bridge_name(uplink.interface)}"


def _set_external_id(key: str, value: str) -> Command:
    """Return the command that sets one; quoted, since a comma would begin another."""
    return ("set", "Open_vSwitch", ".", f"external_ids:{key}={json.dumps(value)}")
