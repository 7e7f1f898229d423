"""Find the Kubernetes binaries, or build them once per machine from Debian's source package."""

import os
import shutil
import subprocess
from pathlib import Path

from virtfleet_dev.paths import cache_dir

VERSION = "v1.20.2"
"""The newest Kubernetes server that Debian's archive has the source of."""

_NAMES = ("kube-apiserver", "kube-controller-manager", "kubectl")


def binaries() -> dict[str, Path]:
    """Return the path of each binary: in `$VIRTFLEET_KUBE_BIN`, on PATH, or in the cache, which is filled if empty."""
    chosen = os.environ.get("VIRTFLEET_KUBE_BIN")
    on_path = {name: shutil.which(name) for name in _NAMES}
    if not chosen and all(on_path.values()):
        return {name: Path(path) for name, path in on_path.items() if path}
    folder = Path(chosen) if chosen else cache_dir() / "kubernetes" / VERSION
    if not chosen and not all((folder / name).exists() for name in _NAMES):
        build(folder)
    found = {name: folder / name for name in _NAMES}
    if not found["kubectl"].exists() and (installed := shutil.which("kubectl")):
        found["kubectl"] = Path(installed)
    missing = [name for name, path in found.items() if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; unset VIRTFLEET_KUBE_BIN to have them built")
    return found


def build(folder: Path) -> None:
    """Build all binaries into the folder (7 minutes on two cores). Builders of one machine wait for each other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("build_kubernetes.sh")
    subprocess.run(["flock", folder.parent / "lock", "bash", script, folder], check=True)
