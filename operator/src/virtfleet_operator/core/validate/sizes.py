"""Rules about CPUs and memory, the same for a machine, a class, and a machine completed by its class."""

from collections.abc import Iterator
from typing import Final

from virtfleet_api.compute import Cpu, Memory
from virtfleet_api.quantity import Bytes, Frequency
from virtfleet_api.vm_class import VMClass
from virtfleet_operator.core.validate.io_tune import io_tune_problems
from virtfleet_operator.core.validate.pinning import affinity_problems, hugepage_problems

MAX_VCPUS: Final = 255
"""x86 guests address more CPUs only behind an IOMMU with extended interrupt mode, which virtfleet does not build:
libvirt refuses such a domain (qemuValidateDomainDef)."""

MIN_MEMORY: Final = Bytes(16 * 2**20)
"""Less does not hold firmware and any kernel; a smaller figure is a forgotten unit."""

MAX_MEMORY: Final = Bytes(8 * 2**40)
"""More than the 43 bits of address that QEMU's machine types give a guest without further settings."""

MIN_LIMIT: Final = Frequency(10_000_000)
"""Of one vCPU. Less is a forgotten unit, and on a fast host shorter than the millisecond that the kernel can give."""


def vcpus_of(cpu: Cpu) -> int:
    """Return the number of vCPUs, counting what is absent as 1."""
    return (cpu.sockets or 1) * (cpu.cores or 1) * (cpu.threads or 1)


def size_problems(cpu: Cpu, memory: Memory) -> Iterator[str]:
    """Check the vCPU product and the memory, as far as they are written."""
    if vcpus_of(cpu) > MAX_VCPUS:
        yield (
            f"spec.cpu: sockets x cores x threads make {vcpus_of(cpu)} vCPUs: "
            f"write at most {MAX_VCPUS} in total, such as cores: 8"
        )
    yield from _max_vcpus_problems(cpu)
    yield from _scheduling_problems(cpu)
    guest, most = memory.guest, memory.max
    if guest is not None and guest < MIN_MEMORY:
        yield f'spec.memory.guest: \'{guest}\' is too small for a guest: write at least "{MIN_MEMORY}", such as "1Gi"'
    if guest is not None and guest > MAX_MEMORY:
        yield f"spec.memory.guest: '{guest}' is more than a guest can have: write at most \"{MAX_MEMORY}\""
    if most is not None and most > MAX_MEMORY:
        yield f"spec.memory.max: '{most}' is more than a guest can have: write at most \"{MAX_MEMORY}\""
    elif most is not None and (least := max(guest or MIN_MEMORY, MIN_MEMORY)) > most:
        yield (
            f"spec.memory.max: '{most}' is less than the machine starts with: "
            f'write at least "{least}", or leave it out'
        )
    yield from affinity_problems(cpu)
    yield from hugepage_problems(memory)


def _max_vcpus_problems(cpu: Cpu) -> Iterator[str]:
    """Check the ceiling: sockets are filled evenly, and a core has all of its threads."""
    most = cpu.max_vcpus
    if most is None:
        return
    unit, started = (cpu.sockets or 1) * (cpu.threads or 1), vcpus_of(cpu)
    if most > MAX_VCPUS:
        yield f"spec.cpu.maxVcpus: '{most}' is more than a guest can have: write at most {MAX_VCPUS}"
    elif most < started:
        yield f"spec.cpu.maxVcpus: '{most}' is less than the {started} vCPUs of the machine: write at least {started}"
    elif most % unit:
        near = min(-(-most // unit) * unit, MAX_VCPUS // unit * unit)
        yield f"spec.cpu.maxVcpus: '{most}' is not a multiple of sockets x threads ({unit}): write such as {near}"


def _scheduling_problems(cpu: Cpu) -> Iterator[str]:
    """Check limit and reservation; what a CPU has is known on the node alone."""
    if cpu.limit is None:
        return
    least = Frequency(MIN_LIMIT * vcpus_of(cpu))
    if cpu.limit < least:
        yield (
            f"spec.cpu.limit: '{cpu.limit}' is less than {MIN_LIMIT} for each of {vcpus_of(cpu)} vCPUs: "
            f'write at least "{least}"'
        )
    if cpu.reservation is not None and cpu.limit < cpu.reservation:
        yield (
            f"spec.cpu.limit: '{cpu.limit}' is below the reservation of '{cpu.reservation}': "
            f'write at least "{cpu.reservation}", or reserve less'
        )


def class_problems(vm_class: VMClass) -> tuple[str, ...]:
    """Check a VMClass."""
    spec = vm_class.spec
    return (*size_problems(spec.cpu, spec.memory), *io_tune_problems("spec.ioTune", spec.io_tune))
