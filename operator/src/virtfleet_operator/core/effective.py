"""What a machine is given: its spec, completed by its VMClass and the defaults."""

from dataclasses import dataclass, field
from typing import Final

from virtfleet_api.compute import Cpu, Memory
from virtfleet_api.io_tune import IoTune
from virtfleet_api.machine import CpuScheduling
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import VMClass
from virtfleet_operator.core.validate.sizes import size_problems
from virtfleet_operator.core.verdict import Invalid, Waiting, quote

DEFAULT_CPU_MODEL: Final = "host-model"

_MIB: Final = 2**20  # libvirt counts guest memory in KiB and QEMU's machine types in MiB; both round up


@dataclass(frozen=True, slots=True)
class Sizing:
    """CPUs, memory and limits as the guest gets them."""

    sockets: int
    cores: int
    threads: int
    cpu_model: str
    memory_bytes: int
    io_tune: IoTune | None = None
    """Of disks that have none of their own."""
    scheduling: CpuScheduling = field(default_factory=CpuScheduling)
    """What the vCPUs together get of the host's CPUs."""

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
    if problems := tuple(size_problems(cpu, memory)):
        return Invalid(problems)
    return Sizing(
        sockets=cpu.sockets or 1,
        cores=cpu.cores or 1,
        threads=cpu.threads or 1,
        cpu_model=cpu.model or DEFAULT_CPU_MODEL,
        memory_bytes=-(-memory.guest // _MIB) * _MIB,
        io_tune=vm_class.spec.io_tune if vm_class else None,
        scheduling=CpuScheduling(limit_hz=cpu.limit, reservation_hz=cpu.reservation or 0, shares=cpu.shares),
    )


def _completed(vm: VirtualMachine, vm_class: VMClass | None) -> tuple[Cpu, Memory]:
    if vm_class is None:
        return vm.spec.cpu, vm.spec.memory
    cpu = vm_class.spec.cpu.model_copy(update=_written(vm.spec.cpu))
    return cpu, vm_class.spec.memory.model_copy(update=_written(vm.spec.memory))


def _written(model: Cpu | Memory) -> dict[str, object]:
    """Return the fields that are written."""
    return {name: value for name in type(model).model_fields if (value := getattr(model, name)) is not None}
