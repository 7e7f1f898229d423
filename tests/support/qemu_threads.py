"""Where QEMU's threads may run, from /proc: what the kernel does, whatever libvirt says."""

from pathlib import Path

from virtfleet_node.core.numa.cpu_set import parse_cpus


def vcpu_threads(pid: int) -> list[frozenset[int]]:
    """Return the CPUs that each vCPU's thread may use; under emulation every vCPU has a thread, too."""
    named = ((_name(task), task) for task in Path(f"/proc/{pid}/task").iterdir())
    vcpus = {int(name.split()[1].partition("/")[0]): task for name, task in named if name.startswith("CPU ")}
    return [_allowed(vcpus[number]) for number in sorted(vcpus)]


def main_thread(pid: int) -> frozenset[int]:
    """Return the CPUs that QEMU's main thread may use."""
    return _allowed(Path(f"/proc/{pid}/task/{pid}"))


def _name(task: Path) -> str:
    return (task / "comm").read_text().strip()


def _allowed(task: Path) -> frozenset[int]:
    lines = (task / "status").read_text().splitlines()
    return next(parse_cpus(line.split()[1]) for line in lines if line.startswith("Cpus_allowed_list:"))
