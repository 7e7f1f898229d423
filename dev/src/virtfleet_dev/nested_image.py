"""What the nested host starts from, built once per machine and kept in the cache."""

import hashlib
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

from virtfleet_dev.paths import cache_dir, checkout

_KEPT_SECONDS = 7 * 86400.0
FILES = ("tools", "root.ext4", "vmlinuz", "initrd", "key")


def sources() -> Path:
    """Return the folder with the recipe."""
    return Path(__file__).with_name("nested")


def guest_kernel() -> Path:
    """Return the kernel of the guests of the nested host; guest.S beside it tells what it does."""
    return sources() / "guest.bin"


def nested_files() -> Path:
    """Return the folder with the FILES, built when missing (100 s), named by the hash of recipe and Python packages."""
    digest = hashlib.sha256((checkout() / "requirements.lock").read_bytes())
    for path in sorted(path for path in sources().rglob("*") if path.is_file() and not path.name.startswith("guest.")):
        digest.update(str(path.relative_to(sources())).encode() + b"\0" + path.read_bytes())
    folder = cache_dir() / "nested" / digest.hexdigest()[:16]
    if not all((folder / name).exists() for name in FILES):
        folder.parent.mkdir(parents=True, exist_ok=True)
        forget_unused(folder.parent)
        lock = folder.parent / "lock"
        subprocess.run(
            ["flock", lock, "bash", sources() / "build.sh", folder, sysconfig.get_path("platlib")], check=True
        )
    folder.touch()
    return folder


def forget_unused(parent: Path, pattern: str = "*") -> None:
    """Remove folders that no checkout has used for a week: each has half a gigabyte, or more."""
    for folder in parent.glob(pattern):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
