"""What the guest agent says, cut to size. The guest is hostile: nothing here is trusted, and everything is bounded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from virtfleet_api.report import GuestReport

MAX_ADDRESSES: Final = 16
"""Addresses kept for each card; a status with more helps nobody."""

MAX_CARDS: Final = 64
"""Cards looked at; a guest may make any number of its own."""

_CPU_LIST: Final = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")
_CPU_LIST_LENGTH: Final = 4096
_TEXT: Final = 128
_HOSTNAME: Final = 253
_MAC: Final = 17


@dataclass(frozen=True)
class GuestFacts:
    """Facts of one guest, and the addresses of its cards by MAC."""

    guest: GuestReport | None = None
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vcpus: int | None = None
    """vCPUs that are online; None when the agent does not say."""


def parse_guest_facts(info: Mapping[str, Any], interfaces: Mapping[str, Any], vcpus: Mapping[str, Any]) -> GuestFacts:
    """Return the facts of virDomainGetGuestInfo, virDomainInterfaceAddresses and virDomainGetGuestVcpus."""
    return GuestFacts(_parse_guest(info), _parse_addresses(interfaces), parse_online(vcpus))


def parse_online(vcpus: Mapping[str, Any]) -> int | None:
    """Return how many vCPUs virDomainGetGuestVcpus calls online, such as "0-2,5"; None when it does not say."""
    online = vcpus.get("online")
    if not isinstance(online, str) or not _CPU_LIST.fullmatch(online[:_CPU_LIST_LENGTH]):
        return None
    ends = (part.partition("-") for part in online.split(","))
    return sum(max(0, int(last or first) - int(first) + 1) for first, _, last in ends)


def _parse_guest(info: Mapping[str, Any]) -> GuestReport | None:
    os_name = _text(info.get("os.pretty-name"), _TEXT)
    kernel = _text(info.get("os.kernel-release"), _TEXT)
    hostname = _text(info.get("hostname"), _HOSTNAME)
    return GuestReport(os=os_name, kernel=kernel, hostname=hostname) if os_name or kernel or hostname else None


def _text(value: object, length: int) -> str | None:
    """Return a word of the guest with nothing unprintable in it, which could play tricks on a terminal."""
    if not isinstance(value, str):
        return None
    return "".join(letter for letter in value[:length] if letter.isprintable()) or None


def _parse_addresses(interfaces: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for card in list(interfaces.values())[:MAX_CARDS]:
        mac = str(card.get("hwaddr") or "").lower()
        usable = (_address(entry.get("addr")) for entry in card.get("addrs") or ())
        addresses = tuple(address for address in usable if address)
        if len(mac) == _MAC and addresses:
            found[mac] = (found.get(mac, ()) + addresses)[:MAX_ADDRESSES]
    return found


def _address(value: object) -> str | None:
    """Return an address in its usual form; loopback and link-local ones reach nobody and are left out.

    So is one with a scope: `fe80::1%…` may end in any text, and means nothing outside the guest.
    """
    text = str(value)
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if "%" in text or address.is_loopback or address.is_link_local else str(address)
