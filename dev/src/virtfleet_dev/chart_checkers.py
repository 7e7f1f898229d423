"""Programs that look for mistakes in manifests: kubernetes-validate knows the kinds, checkov what is unsafe.

They have an environment of their own, once per machine: they need hundreds of megabytes that nothing else does. Both
work without a network.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from virtfleet_dev.paths import cache_dir, checkout, program


def checker(name: str) -> Path:
    """Return the path of `kubernetes-validate` or `checkov`, both installed when they are missing."""
    lock = checkout() / "dev" / "chart-checkers.lock"
    parent = cache_dir() / "chart-checkers"
    folder = parent / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(folder, lock)
            (folder / "complete").touch()
    return folder / "bin" / name


def _install(folder: Path, lock: Path) -> None:
    # Programs name their environment by its path: it is made where it stays.
    shutil.rmtree(folder, ignore_errors=True)
    uv = program("uv")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "-q",
        "--python",
        folder / "bin" / "python",
        "--require-hashes",
        "-r",
        lock,
    ]
    subprocess.run(install, check=True)
