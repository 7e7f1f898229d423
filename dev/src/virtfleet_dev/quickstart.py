"""From nothing to a running machine, told step by step."""

import subprocess
import time
from pathlib import Path

from rich.console import Console

from virtfleet_dev.cluster import Cluster, is_ready
from virtfleet_dev.paths import checkout, program

MACHINE_SECONDS = 180.0  # an emulated guest is ready in seconds; the rest is for slow disks
_CONSOLE_SECONDS = 60.0


def quickstart(cluster: Cluster, console: Console) -> None:
    """Start a cluster, apply examples/quickstart.yaml, and show the machine and its console."""
    example = checkout() / "examples" / "quickstart.yaml"
    console.print(
        "[bold]1. A cluster on this machine[/bold]: a real kube-apiserver and a hypervisor with a real libvirtd"
    )
    cluster.up(nodes=1)
    console.print(f"\n[bold]2. A virtual machine[/bold]: kubectl apply -f {example.relative_to(checkout())}")
    console.print(example.read_text(), markup=False)
    console.print(cluster.kubectl.run("apply", "-f", str(example)).rstrip())
    _follow(cluster, console)
    console.print("\n[bold]3. It runs[/bold]: kubectl get vm")
    console.print(cluster.kubectl.run("get", "vm"))
    console.print("[bold]4. Its console[/bold]: kubectl vm console quickstart --history")
    console.print(_console_output(cluster), markup=False)
    _next_steps(cluster, console)


def _follow(cluster: Cluster, console: Console) -> None:
    """Say what changes until the machine is Ready; TimeoutError with its status when it does not get there."""
    end, said = time.monotonic() + MACHINE_SECONDS, ""
    while True:
        machine = cluster.kubectl.get("vm", "quickstart") or {}
        image = cluster.kubectl.get("vmimage", "quickstart") or {}
        text = f"image {_word(image, 'phase')} {_word(image, 'progress')}, machine {_word(machine, 'printableStatus')}"
        if text != said:
            console.print(f"   {text}")
            said = text
        if is_ready(machine):
            return
        if time.monotonic() > end:
            raise TimeoutError(cluster.kubectl.run("describe", "vm,vmimage"))
        time.sleep(0.3)


def _word(found: dict[str, dict[str, str]], field: str) -> str:
    return found.get("status", {}).get(field, "…")


def _console_output(cluster: Cluster) -> str:
    """Return what the guest printed so far, once it has said READY."""
    end = time.monotonic() + _CONSOLE_SECONDS
    command: list[str | Path] = [program("kubectl-vm"), "--kubeconfig", cluster.control_plane.kubeconfig]
    while True:
        done = subprocess.run([*command, "console", "quickstart", "--history"], capture_output=True, check=False)
        text = done.stdout.decode(errors="replace")
        if "READY" in text or time.monotonic() > end:
            return (text + done.stderr.decode(errors="replace")).replace("\r", "")
        time.sleep(0.5)


def _next_steps(cluster: Cluster, console: Console) -> None:
    console.print("[bold]What next[/bold]\n")
    for command in (
        f"export KUBECONFIG={cluster.control_plane.kubeconfig} PATH={cluster.directory / 'bin'}:$PATH",
        "kubectl vm console quickstart          # a shell in the guest; leave with Ctrl-]",
        "kubectl vm describe quickstart",
        "kubectl vm restart quickstart --wait",
        "kubectl vm stop quickstart && kubectl get vm -w",
        "kubectl apply -f examples/cloud-init.yaml",
        "kubectl explain vm.spec.disks",
        "make down                              # remove all of it",
    ):
        console.print(f"  {command}", markup=False, soft_wrap=True)
