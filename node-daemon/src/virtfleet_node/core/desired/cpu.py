"""Virtual CPUs: count, topology and model."""

from collections.abc import Iterable
from typing import Final

from virtfleet_api.machine import Hardware
from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import DomainType, Guest

_HOST_MODELS: Final = frozenset({"host-model", "host-passthrough"})

MAX_QUEUES: Final = 16
"""Of a disk whose guest may be given more vCPUs: each queue costs the guest an interrupt and its ring's memory."""


def configure_cpu(domain: Element, guest: Guest) -> None:
    """Write <vcpu>, <vcpus> and <cpu>. The topology is that of all vCPUs that the guest may be given."""
    hardware = guest.hardware
    vcpu = add(domain, "vcpu", str(hardware.vcpu_ceiling), placement="static")
    if hardware.vcpu_ceiling > hardware.vcpus:
        vcpu.set("current", str(hardware.vcpus))
    if _can_unplug(guest):
        _add_vcpus(domain, hardware)
    cpu = _add_model(domain, guest)
    add(cpu, "topology", sockets=hardware.sockets, dies=1, cores=_cores(hardware), threads=hardware.threads)


def started_vcpus(hardware: Hardware) -> tuple[int, ...]:
    """Return the vCPUs that a guest has from the beginning: in each socket the first, so that all sockets are there."""
    per_socket = _cores(hardware) * hardware.threads
    used = hardware.cores * hardware.threads
    return tuple(socket * per_socket + number for socket in range(hardware.sockets) for number in range(used))


def queue_count(hardware: Hardware) -> int:
    """Return the queues of a disk or SCSI controller: one for each vCPU that the guest may be given, within bounds."""
    return max(hardware.vcpus, min(hardware.vcpu_ceiling, MAX_QUEUES))


def _cores(hardware: Hardware) -> int:
    """Return the cores per socket of the whole topology."""
    return hardware.vcpu_ceiling // (hardware.sockets * hardware.threads)


def _can_unplug(guest: Guest) -> bool:
    """Tell whether vCPUs are to be taken away again: libvirt unplugs those that were plugged as devices."""
    return guest.hardware.vcpu_ceiling > 1 and guest.hardware.max_vcpus is not None and not guest.is_test


def _add_vcpus(domain: Element, hardware: Hardware) -> None:
    vcpus, started = add(domain, "vcpus"), started_vcpus(hardware)
    for number in range(hardware.vcpu_ceiling):
        _add_vcpu(vcpus, number, started)


def _add_vcpu(vcpus: Element, number: int, started: Iterable[int]) -> None:
    """Write one vCPU; the first stays, as firmware and many guests need it."""
    enabled = number in started
    add(
        vcpus,
        "vcpu",
        id=number,
        enabled="yes" if enabled else "no",
        hotpluggable="no" if number == 0 else "yes",
    )


def _add_model(domain: Element, guest: Guest) -> Element:
    """Write the model. Emulation has no host CPU to show: there the host models give QEMU's own default."""
    model = guest.hardware.cpu_model
    if model not in _HOST_MODELS:
        cpu = add(domain, "cpu", mode="custom", match="exact", check="none")
        add(cpu, "model", model, fallback="forbid")
        return cpu
    if guest.facts.domain_type is DomainType.KVM:
        return add(domain, "cpu", mode=model)
    return add(domain, "cpu")
