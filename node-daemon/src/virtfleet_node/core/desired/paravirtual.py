"""Small devices every guest gets: memory balloon, random numbers, and the panic device that tells of a crash."""

from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, Guest


def configure_balloon(domain: Element, guest: Guest) -> None:
    """Write the memory balloon."""
    add_port(add(devices(domain), "memballoon", model="virtio"), guest, "balloon")


def configure_rng(domain: Element, guest: Guest) -> None:
    """Write the random number generator: a guest that lacks entropy hangs at its first key."""
    if guest.facts.domain_type is not DomainType.TEST:
        rng = add(devices(domain), "rng", model="virtio")
        add(rng, "backend", "/dev/urandom", model="random")
        add_port(rng, guest, "rng")


def configure_panic(domain: Element, guest: Guest) -> None:
    """Write the panic device (pvpanic), by which a crash is known from a hang."""
    if guest.facts.domain_type is not DomainType.TEST:
        add(devices(domain), "panic", model="isa")
