"""What the nested host starts from, built once per machine and kept in the cache."""

import hashlib
import subprocess
import sysconfig
from pathlib import Path

from virtfleet_dev.paths import cache_dir, checkout

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
        lock = folder.parent / "lock"
        subprocess.run(
            ["flock", lock, "bash", sources() / "build.sh", folder, sysconfig.get_path("platlib")], check=True
        )
    return folder
