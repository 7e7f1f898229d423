"""Rules about the network cards of a machine."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from virtfleet_api.bandwidth import Bandwidth, Rate
from virtfleet_api.network import Network
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.verdict import quote

_EXAMPLE: Final = "52:54:00:12:34:56"
_VERSIONS: Final = {"ipAddress": 4, "ipv6Address": 6}
_EXAMPLES: Final = {4: "10.1.0.7", 6: "fd00:1::7"}

MIN_RATE: Final = 64_000
"""Bits a second; with less no guest gets an address in time, so it is a forgotten unit."""

MIN_BURST: Final = 9000
"""Bytes: a burst smaller than one packet stops the card."""


def network_problems(vm: VirtualMachine) -> Iterator[str]:
    """Check the network cards of a machine."""
    names: Counter[str] = Counter()
    macs: Counter[str] = Counter()
    for index, nic in enumerate(vm.spec.networks):
        where = f"spec.networks[{index}]"
        names[nic.name] += 1
        if names[nic.name] == 2:  # noqa: PLR2004  the second of a name is the one to rename
            yield f"{where}.name: {quote(nic.name)} is used twice: write a name that no other network card has"
        if nic.mac_address is not None:
            mac = nic.mac_address.lower()
            macs[mac] += 1
            yield from mac_problems(f"{where}.macAddress", mac)
            if macs[mac] == 2:  # noqa: PLR2004  the second of an address is the one to change
                yield f"{where}.macAddress: '{mac}' is used twice: write another address, or leave it out to get one"
        yield from _kind_problems(where, nic)
        yield from _address_problems(where, nic)
        yield from bandwidth_problems(f"{where}.bandwidth", nic.bandwidth)


def mac_problems(where: str, mac: str) -> Iterator[str]:
    """Check the MAC address of a card, in lower case."""
    if int(mac[:2], 16) & 1:
        yield f"{where}: '{mac}' is a multicast address: write one whose first byte is even, such as \"{_EXAMPLE}\""
    if mac == "00:00:00:00:00:00":
        yield f"{where}: '{mac}' is not an address of a card: write one such as \"{_EXAMPLE}\", or leave it out"


def bandwidth_problems(where: str, bandwidth: Bandwidth | None) -> Iterator[str]:
    """Check limits; `where` is the field that holds them."""
    if bandwidth is None:
        return
    for direction, rate in (("inbound", bandwidth.inbound), ("outbound", bandwidth.outbound)):
        yield from _rate_problems(f"{where}.{direction}", rate) if rate else ()


def _rate_problems(where: str, rate: Rate) -> Iterator[str]:
    if rate.average < MIN_RATE:
        yield f"{where}.average: '{rate.average}' lets no guest work: write at least \"{MIN_RATE // 1000}kbit\""
    if rate.burst is not None and rate.burst < MIN_BURST:
        yield f"{where}.burst: '{rate.burst}' is less than a packet: write at least \"16Ki\", or leave it out"


def _kind_problems(where: str, nic: Network) -> Iterator[str]:
    """Check that a card is on a switch or behind NAT, and that what it names means something there."""
    if (nic.user is None) == (nic.switch is None):
        said = "names both switch and user" if nic.user else "names neither switch nor user"
        yield f'{where}: {said}: write one, "switch: tenant" or "user: {{}}"'
    if nic.port_group is not None and nic.vlan is not None:
        yield f"{where}.vlan: cannot stand beside portGroup, which has a VLAN of its own: write one of the two"
    if nic.switch is not None:
        return
    written = {
        "portGroup": nic.port_group,
        "vlan": nic.vlan,
        "ipAddress": nic.ip_address,
        "ipv6Address": nic.ipv6_address,
        "allowedAddresses": nic.allowed_addresses,
        "securityGroups": nic.security_groups,
        "bandwidth": nic.bandwidth,
    }
    for field, value in written.items():
        if value:
            yield f"{where}.{field}: has no effect without a switch: write switch, or remove it"


def _address_problems(where: str, nic: Network) -> Iterator[str]:
    for field, asked in (("ipAddress", nic.ip_address), ("ipv6Address", nic.ipv6_address)):
        version = _VERSIONS[field]
        if asked is not None and not is_address(asked, version):
            said = f"{quote(asked)} is no IPv{version} address"
            yield f'{where}.{field}: {said}: write one such as "{_EXAMPLES[version]}"'
    for index, allowed in enumerate(nic.allowed_addresses):
        place = f"{where}.allowedAddresses[{index}]"
        try:
            ip_network(allowed.ip_address)
        except ValueError:
            said = f"{quote(allowed.ip_address)} is neither an address nor a range"
            yield f'{place}.ipAddress: {said}: write one such as "10.1.0.100" or "10.1.0.96/28"'
        if allowed.mac_address is not None:
            yield from mac_problems(f"{place}.macAddress", allowed.mac_address.lower())


def is_address(text: str, version: int) -> bool:
    """Tell whether text is an address of this IP version."""
    try:
        return ip_address(text).version == version
    except ValueError:
        return False
