"""The step that brings a running guest to where it shall run."""

from dataclasses import dataclass

from virtfleet_node.core.numa.cpu_set import format_cpus


@dataclass(frozen=True)
class Pin:
    """Have a running guest's threads run on other CPUs, then its memory moved to other cells."""

    vcpus: tuple[tuple[int, frozenset[int]], ...] = ()
    emulator: frozenset[int] | None = None
    nodes: frozenset[int] | None = None

    def __str__(self) -> str:
        """Say it in words."""
        vcpus = (f"vCPU {vcpu} to {format_cpus(cpus)}" for vcpu, cpus in self.vcpus)
        emulator = (f"emulator to {format_cpus(self.emulator)}",) if self.emulator is not None else ()
        memory = (f"memory to cells {format_cpus(self.nodes)}",) if self.nodes is not None else ()
        return f"pin {', '.join((*vcpus, *emulator, *memory))}"
