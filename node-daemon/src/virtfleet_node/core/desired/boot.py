"""What the guest starts from: a kernel given directly, or its disks in their boot order."""

import re

from virtfleet_api.machine import Hardware
from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import DomainType, Guest


def configure_boot(domain: Element, guest: Guest) -> None:
    """Write <os>."""
    system = add(domain, "os")
    attributes = {} if guest.facts.domain_type is DomainType.TEST else {"machine": build_machine_type(guest.hardware)}
    add(system, "type", "hvm", arch=guest.facts.arch, **attributes)
    if guest.hardware.kernel is None:
        return
    for tag, path in (("kernel", guest.paths.kernel), ("initrd", guest.paths.initrd)):
        if path is not None:
            add(system, tag, str(path))
    if guest.hardware.kernel.cmdline:
        add(system, "cmdline", guest.hardware.kernel.cmdline)


def build_machine_type(hardware: Hardware) -> str:
    """Return QEMU's name of the machine type: q35, pc, pc-q35-7.2, pc-i440fx-7.2."""
    if hardware.machine_type in {"i440fx", "pc-i440fx"}:
        return "pc"
    if hardware.machine_type == "pc-q35":
        return "q35"
    versioned = re.fullmatch(r"(?:pc-)?((?:q35|i440fx)-.+)", hardware.machine_type)
    return f"pc-{versioned[1]}" if versioned else hardware.machine_type


def build_boot_order(hardware: Hardware) -> dict[str, int]:
    """Return the boot order of the disks: those with a number first, the others as they are listed."""
    if hardware.kernel is not None:
        return {}
    last = len(hardware.disks) + max((d.boot_order or 0 for d in hardware.disks), default=0)
    ranked = sorted(hardware.disks, key=lambda disk: disk.boot_order or last)
    return {disk.name: place for place, disk in enumerate(ranked, start=1)}
