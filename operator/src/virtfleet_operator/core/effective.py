"""What a machine is given: its spec, completed by its VMClass and the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from virtfleet_api.compute import Cpu, Memory
from virtfleet_api.io_tune import IoTune
from virtfleet_api.machine import CpuScheduling
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import ClassUpdates, VMClass
from virtfleet_operator.core.validate.pinning import PAGE_BYTES, missing_vcpu_problems
from virtfleet_operator.core.validate.sizes import size_problems, vcpus_of
from virtfleet_operator.core.verdict import Invalid, Waiting, quote

DEFAULT_CPU_MODEL: Final = "host-model"

_MIB: Final = 2**20  # libvirt counts guest memory in KiB and QEMU's machine types in MiB; both round up

LIMITS: Final = "disks.limits"
"""Among what waits for the next start: the limits of disks that have none of their own."""

_FIELDS: Final = {
    "sockets": "sockets",
    "cores": "cores",
    "threads": "threads",
    "max_vcpus": "max_vcpus",
    "guest": "memory_bytes",
    "max": "max_memory_bytes",
    "affinity": "affinity",
    "dedicated": "dedicated_cpus",
    "hugepages": "hugepage_bytes",
    "limit": "scheduling.limit_hz",
    "reservation": "scheduling.reservation_hz",
    "shares": "scheduling.shares",
    "io_tune": LIMITS,
}
"""Fields of `Hardware` by those of `Cpu` and `Memory` that they are compiled from."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """CPUs, memory and limits as the guest gets them."""

    sockets: int
    cores: int
    threads: int
    cpu_model: str
    memory_bytes: int
    dedicated_cpus: bool = False
    affinity: Mapping[int, str] = field(default_factory=dict)
    """CPUs of the host by vCPU."""
    hugepage_bytes: int | None = None
    io_tune: IoTune | None = None
    """Of disks that have none of their own."""
    scheduling: CpuScheduling = field(default_factory=CpuScheduling)
    """What the vCPUs together get of the host's CPUs."""
    max_vcpus: int | None = None
    max_memory_bytes: int | None = None
    deferred: tuple[str, ...] = ()
    """Fields of `Hardware` that a change of the class changes at the next start only; LIMITS for those of disks."""

    @property
    def vcpus(self) -> int:
        """Return the number of vCPUs."""
        return self.sockets * self.cores * self.threads


def resolve(vm: VirtualMachine, vm_class: VMClass | None) -> Sizing | Waiting | Invalid:
    """Complete a machine's sizes; what stands in its own spec wins over its class."""
    name = vm.spec.class_name
    if name is not None and vm_class is None:
        return Waiting("ClassNotFound", f"spec.className: there is no VMClass {quote(name)}: create it or name another")
    cpu, memory = _completed(vm, vm_class)
    if memory.guest is None:
        said = f"VMClass {quote(name)} has none" if name else "there is no class to give it"
        return Invalid((f'spec.memory.guest: is missing, and {said}: write a size such as "1Gi"',))
    ceiling = max(vcpus_of(cpu), cpu.max_vcpus or 0)
    if problems := (*size_problems(cpu, memory), *missing_vcpu_problems(cpu, ceiling)):
        return Invalid(problems)
    return Sizing(
        sockets=cpu.sockets or 1,
        cores=cpu.cores or 1,
        threads=cpu.threads or 1,
        cpu_model=cpu.model or DEFAULT_CPU_MODEL,
        memory_bytes=_whole(memory.guest),
        dedicated_cpus=bool(cpu.dedicated),
        affinity=dict(sorted((int(vcpu), cpus) for vcpu, cpus in (cpu.affinity or {}).items())),
        hugepage_bytes=PAGE_BYTES[memory.hugepages] if memory.hugepages else None,
        io_tune=vm_class.spec.io_tune if vm_class else None,
        scheduling=CpuScheduling(limit_hz=cpu.limit, reservation_hz=cpu.reservation or 0, shares=cpu.shares),
        max_vcpus=cpu.max_vcpus,
        max_memory_bytes=None if memory.max is None else _whole(memory.max),
        deferred=_deferred(vm, vm_class),
    )


def _deferred(vm: VirtualMachine, vm_class: VMClass | None) -> tuple[str, ...]:
    """Return what waits for the next start because it is left to a class that changes machines only then."""
    if vm_class is None or vm_class.spec.updates is ClassUpdates.LIVE:
        return ()
    written = {*_written(vm.spec.cpu), *_written(vm.spec.memory)}
    return tuple(name for word, name in _FIELDS.items() if word not in written)


def _whole(size_bytes: int) -> int:
    return -(-size_bytes // _MIB) * _MIB


def _completed(vm: VirtualMachine, vm_class: VMClass | None) -> tuple[Cpu, Memory]:
    if vm_class is None:
        return vm.spec.cpu, vm.spec.memory
    cpu = vm_class.spec.cpu.model_copy(update=_written(vm.spec.cpu))
    return cpu, vm_class.spec.memory.model_copy(update=_written(vm.spec.memory))


def _written(model: Cpu | Memory) -> dict[str, object]:
    """Return the fields that are written."""
    return {name: value for name in type(model).model_fields if (value := getattr(model, name)) is not None}
