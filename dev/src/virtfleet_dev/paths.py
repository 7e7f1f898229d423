"""Where things lie: the state of a cluster (`VIRTFLEET_DEV_DIR`), and what is built once per machine (the cache)."""

import os
from pathlib import Path


def checkout() -> Path:
    """Return the root of the checkout this package is installed from."""
    return Path(__file__).resolve().parents[3]


def default_dev_dir() -> Path:
    """Return the directory of the default cluster: `$VIRTFLEET_DEV_DIR`, else `.dev` in the checkout."""
    return Path(os.environ.get("VIRTFLEET_DEV_DIR") or checkout() / ".dev").resolve()


def cache_dir() -> Path:
    """Return the cache of built binaries and guest images; it outlives checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "virtfleet"


def program(name: str) -> Path:
    """Return a program of the checkout's Python environment."""
    return checkout() / ".venv" / "bin" / name
