"""Where the guest runs on the host's NUMA cells, and the cells that it sees itself."""

from typing import Final

from virtfleet_node.core.desired.element import Element, add, section
from virtfleet_node.core.desired.guest import Guest
from virtfleet_node.core.numa.cpu_set import format_cpus
from virtfleet_node.core.numa.pins import GuestCell, MemoryMode, Pinning

_KIB: Final = 1024


def configure_pins(domain: Element, guest: Guest) -> None:
    """Write the CPUs of <vcpu>, <cputune>'s pins and <numatune>; nothing for a guest that runs anywhere."""
    pinning, vcpu = guest.pinning, domain.find("vcpu")
    if pinning is None or vcpu is None:
        return
    vcpu.set("cpuset", format_cpus(pinning.emulator))
    tune = section(domain, "cputune")
    for number, cpus in enumerate(pinning.vcpus[: int(vcpu.text or "0")]):
        add(tune, "vcpupin", vcpu=number, cpuset=format_cpus(cpus))
    add(tune, "emulatorpin", cpuset=format_cpus(pinning.emulator))
    if pinning.nodes:
        _add_memory(section(domain, "numatune"), guest, pinning)


def _add_memory(tune: Element, guest: Guest, pinning: Pinning) -> None:
    add(tune, "memory", mode=pinning.mode, nodeset=format_cpus(pinning.nodes))
    for index, cell in enumerate(guest.cells):
        if cell.host_cell is not None:
            add(tune, "memnode", cellid=index, mode=MemoryMode.STRICT, nodeset=cell.host_cell)


def configure_guest_cells(domain: Element, guest: Guest) -> None:
    """Write <cpu><numa>: guest cells with their vCPUs and memory, in bytes; nothing for a guest without cells."""
    cpu, cells = domain.find("cpu"), _guest_cells(guest)
    if not cells or cpu is None:
        return
    numa = section(cpu, "numa")
    for index, cell in enumerate(cells):
        add(numa, "cell", id=index, cpus=format_cpus(cell.vcpus), memory=cell.memory_bytes, unit="b")


def _guest_cells(guest: Guest) -> tuple[GuestCell, ...]:
    """Return the cells of a guest that lies on several; one if it may be given memory: QEMU plugs that into cells."""
    if guest.cells or not guest.has_memory_device:
        return guest.cells
    return (GuestCell(frozenset(range(guest.hardware.vcpu_ceiling)), guest.hardware.memory_bytes),)


def configure_hugepages(domain: Element, guest: Guest) -> None:
    """Write <memoryBacking>'s huge pages."""
    size = guest.hardware.hugepage_bytes
    if size is not None:
        pages = add(section(domain, "memoryBacking"), "hugepages")
        add(pages, "page", size=size // _KIB, unit="KiB")
