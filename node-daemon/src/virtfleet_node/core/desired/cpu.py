"""Virtual CPUs: count, topology and model."""

from typing import Final

from virtfleet_node.core.desired.element import Element, add
from virtfleet_node.core.desired.guest import DomainType, Guest

_HOST_MODELS: Final = frozenset({"host-model", "host-passthrough"})


def configure_cpu(domain: Element, guest: Guest) -> None:
    """Write <vcpu> and <cpu>."""
    hardware = guest.hardware
    add(domain, "vcpu", str(hardware.vcpus), placement="static")
    cpu = _add_model(domain, guest)
    add(cpu, "topology", sockets=hardware.sockets, dies=1, cores=hardware.cores, threads=hardware.threads)


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
