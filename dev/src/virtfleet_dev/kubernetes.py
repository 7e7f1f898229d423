"""Find the Kubernetes programs, or build them once per machine from Debian's source package."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from virtfleet_dev.paths import cache_dir

VERSION = "v1.20.2"
"""The newest Kubernetes server that Debian's archive has the source of."""

_CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kubectl")
_POD_CLUSTER = ("kube-scheduler", "kubelet", "kube-proxy", "pause")
"""What a cluster that runs pods needs besides."""


def binaries() -> dict[str, Path]:
    """Return the path of each program of a control plane, and of kubectl.

    They are in `$VIRTFLEET_KUBE_BIN`, on PATH, or in the cache, where those that are missing are built.
    """
    return _find(_CONTROL_PLANE)


def pod_binaries() -> dict[str, Path]:
    """Return the path of kube-scheduler, kubelet, kube-proxy and pause, found as those of the control plane are."""
    return _find(_POD_CLUSTER)


def minor_version(program: Path) -> int:
    """Return the second number of a Kubernetes program's version."""
    done = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    return int(done.stdout.split(".")[1])


def _find(names: Sequence[str]) -> dict[str, Path]:
    chosen = os.environ.get("VIRTFLEET_KUBE_BIN")
    on_path = {name: shutil.which(name) for name in names}
    if not chosen and all(on_path.values()):
        return {name: Path(path) for name, path in on_path.items() if path}
    folder = Path(chosen) if chosen else cache_dir() / "kubernetes" / VERSION
    if not chosen and not all((folder / name).exists() for name in names):
        build(folder, names)
    found = {name: folder / name for name in names}
    if "kubectl" in found and not found["kubectl"].exists() and (installed := shutil.which("kubectl")):
        found["kubectl"] = Path(installed)
    missing = [name for name, path in found.items() if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; unset VIRTFLEET_KUBE_BIN to have them built")
    return found


def build(folder: Path, names: Sequence[str]) -> None:
    """Build those of the programs that the folder lacks: 5 minutes on two cores for a control plane, 2 for the rest.

    Builders of one machine wait for each other.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("build_kubernetes.sh")
    subprocess.run(["flock", folder.parent / "lock", "bash", script, folder, *names], check=True)
