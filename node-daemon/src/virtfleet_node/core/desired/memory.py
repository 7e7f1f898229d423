"""Guest memory."""

from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import Guest


def configure_memory(domain: Element, guest: Guest) -> None:
    """Write <memory> and <currentMemory> in bytes; libvirt rounds up to its own unit."""
    for tag in ("memory", "currentMemory"):
        add(domain, tag, str(guest.hardware.memory_bytes), unit="b")
