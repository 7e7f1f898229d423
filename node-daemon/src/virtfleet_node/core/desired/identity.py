"""Who the domain is. Name and UUID derive from the VM's UID, so a recreated VM is never mistaken for another."""

from typing import Final

from virtfleet_api.machine import Machine
from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import Guest

DOMAIN_PREFIX: Final = "vf-"
"""Domains without it are not ours and are never touched."""


def build_domain_name(uid: str) -> str:
    """Return the name of the machine's domain."""
    return f"{DOMAIN_PREFIX}{uid}"


def parse_domain_name(name: str) -> str | None:
    """Return the UID of the machine with this domain, None for a domain that is not ours."""
    return name.removeprefix(DOMAIN_PREFIX) if name.startswith(DOMAIN_PREFIX) else None


def configure_identity(domain: Element, guest: Guest) -> None:
    """Write name, UUID and title."""
    add_identity(domain, guest.machine)


def add_identity(domain: Element, machine: Machine) -> None:
    """Write name, UUID and title of a machine."""
    add(domain, "name", build_domain_name(machine.uid))
    add(domain, "uuid", machine.uid)
    add(domain, "title", f"{machine.namespace}/{machine.name}")
