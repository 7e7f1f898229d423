"""Find Prometheus' programs, or unpack them once per machine from Debian's package, whose service would start."""

import shutil
import subprocess
from pathlib import Path

from virtfleet_dev.paths import cache_dir

_NAMES = ("prometheus", "promtool")


def binaries() -> dict[str, Path]:
    """Return the path of each program: on PATH, or in the cache, which is filled if empty (20 MB)."""
    on_path = {name: shutil.which(name) for name in _NAMES}
    if all(on_path.values()):
        return {name: Path(path) for name, path in on_path.items() if path}
    folder = cache_dir() / "prometheus"
    if not all((folder / name).exists() for name in _NAMES):
        folder.parent.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("unpack_prometheus.sh")
        subprocess.run(["flock", folder.parent / "prometheus.lock", "bash", script, folder], check=True)
    return {name: folder / name for name in _NAMES}
