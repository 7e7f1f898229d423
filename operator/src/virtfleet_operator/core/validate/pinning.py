"""Rules about CPUs of the host that a machine names, and huge pages."""

from collections.abc import Iterator, Mapping
from typing import Final

from virtfleet_api.compute import Cpu, HugepageSize, Memory
from virtfleet_operator.core.verdict import quote

PAGE_BYTES: Final[Mapping[HugepageSize, int]] = {
    HugepageSize.MEBIBYTES_2: 2 << 20,
    HugepageSize.GIBIBYTES_1: 1 << 30,
}

MAX_CPU: Final = 8191
"""The highest number that Linux gives a CPU (NR_CPUS of x86)."""


def affinity_problems(cpu: Cpu) -> Iterator[str]:
    """Check the CPUs by vCPU, each by itself."""
    for vcpu, cpus in (cpu.affinity or {}).items():
        where = f"spec.cpu.affinity[{quote(vcpu)}]"
        if not _is_number(vcpu):
            yield f'{where}: is no vCPU: write its number, such as "0"'
        yield from (f"{where}: {problem}" for problem in _set_problems(cpus))


def missing_vcpu_problems(cpu: Cpu, vcpus: int) -> Iterator[str]:
    """Check that a machine has the vCPUs that are pinned; `vcpus` is how many it may be given."""
    for vcpu in cpu.affinity or {}:
        if _is_number(vcpu) and int(vcpu) >= vcpus:
            there = f'write "0" to "{vcpus - 1}"' if vcpus > 1 else 'write "0"'
            where = f"spec.cpu.affinity[{quote(vcpu)}]"
            yield f"{where}: the machine has no such vCPU: {there}, or give it more cores"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and str(int(text)) == text


def _set_problems(cpus: str) -> Iterator[str]:
    for part in cpus.split(","):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            yield f'{quote(part)} runs backwards: write "{last}-{first}"'
        elif int(last or first) > MAX_CPU:
            yield f"{quote(part)} is beyond what hosts have: write CPUs up to {MAX_CPU}"


def hugepage_problems(memory: Memory) -> Iterator[str]:
    """Check that the memory consists of whole pages."""
    if memory.hugepages is None:
        return
    page = PAGE_BYTES[memory.hugepages]
    for name, size in (("guest", memory.guest), ("max", memory.max)):
        if size is not None and size % page:
            more = -(-size // page) * int(memory.hugepages[0])
            yield (
                f"spec.memory.{name}: '{size}' is not a multiple of the huge pages of {memory.hugepages}: "
                f'write "{more}{memory.hugepages[1:]}"'
            )
