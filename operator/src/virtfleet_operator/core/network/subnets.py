"""The managed addresses of a switch: which there are, and which one a card is given next."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Final

from virtfleet_api.virtual_switch import Subnet
from virtfleet_operator.core.network.topology import IpAddress, IpNetwork

Interval = tuple[int, int]
"""First and last address, as numbers."""

LEAST_FOR_FORWARDER: Final = 8
"""Addresses that a subnet must have to give, before the nodes take one."""


@dataclass(frozen=True)
class Range:
    """The addresses of a subnet that cards may have."""

    network: IpNetwork
    first: int
    last: int
    reserved: tuple[Interval, ...]
    """Never assigned by the switch itself, though a machine may name one; sorted."""
    router: IpAddress
    """What answers DHCP, and routes if the switch has a way out; no card may have it."""

    def holds(self, address: IpAddress) -> bool:
        """Tell whether a card may have the address at all."""
        return address in self.network and self.first <= int(address) <= self.last and address != self.router

    def skips(self, number: int) -> int | None:
        """Return the number after the reserved part that holds this one, None if none does."""
        if number in (int(self.router), self.forwarder):
            return number + 1
        return next((last + 1 for first, last in self.reserved if first <= number <= last), None)

    @cached_property
    def forwarder(self) -> int | None:
        """Return the number of the address that nodes reach guests from: the last one that no card need have.

        It is never assigned. A small IPv4 subnet has none, since each address counts there. Nor has an IPv6 subnet,
        where a link-local address serves.
        """
        number = self.last
        held = sorted((*self.reserved, (int(self.router), int(self.router))), reverse=True)
        for first, last in held:
            if first <= number <= last:
                number = first - 1
        roomy = self._count(held) >= LEAST_FOR_FORWARDER
        return number if self.network.version == 4 and roomy and number >= self.first else None  # noqa: PLR2004

    @property
    def size(self) -> int:
        """Return how many addresses the switch may assign by itself."""
        return self._count((*self.reserved, (int(self.router), int(self.router)))) - (self.forwarder is not None)

    def _count(self, intervals: Iterable[Interval]) -> int:
        """Return how many addresses are in none of the intervals."""
        held, ends = 0, self.first
        for first, last in sorted(intervals):
            low, high = max(first, ends), min(last, self.last)
            if low <= high:
                held += high - low + 1
                ends = high + 1
        return self.last - self.first + 1 - held


def parse_range(subnet: Subnet) -> Range:
    """Parse a valid subnet; ValueError for one that is not."""
    network = ip_network(subnet.cidr)
    edge = 1 if isinstance(network, IPv4Network) else 0  # IPv6 has no broadcast address
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - edge
    router = ip_address(subnet.gateway) if subnet.gateway else network[last - int(network.network_address)]
    reserved = sorted(parse_interval(text) for text in subnet.reserved)
    return Range(network, first, last, tuple(reserved), router)


def parse_interval(text: str) -> Interval:
    """Parse "10.1.0.2-10.1.0.9" or one address; ValueError for anything else."""
    first, _, last = text.partition("-")
    low, high = ip_address(first), ip_address(last or first)
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"{text} does not go from a lower to a higher address")
    return int(low), int(high)


def choose_address(given: Range, after: int, is_taken: Callable[[IpAddress], bool]) -> IpAddress | None:
    """Return the first free address after a number, going round once; None when the subnet is exhausted.

    Going round keeps an address unused for as long as possible after its machine has gone.
    """
    start = after + 1 if given.first <= after < given.last else given.first
    for low, high in ((start, given.last), (given.first, start - 1)):
        number = low
        while number <= high:
            beyond = given.skips(number)
            if beyond is not None:
                number = beyond
                continue
            address = given.network[number - int(given.network.network_address)]
            if not is_taken(address):
                return address
            number += 1
    return None
