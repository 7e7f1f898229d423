"""A file system of its own in a file, so that a test can fill it and try what the machine's own cannot do."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtfleet_dev.node import Node

_MAKE = {"ext4": ("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0"), "xfs": ("mkfs.xfs", "-q")}


@contextmanager
def mounted(
    where: Path, mebibytes: int, kind: str = "ext4", node: Node | None = None, inside: Path | None = None
) -> Iterator[Path]:
    """Mount a new file system at a folder, and in a node's own mounts as well; nothing is left of it afterwards.

    `inside` is where the node sees it, if that is another path.
    """
    file = where.with_name(f"{where.name}.img")
    where.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as made:
        made.truncate(mebibytes << 20)
    subprocess.run([*_MAKE[kind], file], check=True, capture_output=True)
    shown = subprocess.run(["losetup", "--show", "--find", file], check=True, capture_output=True, text=True)
    device = shown.stdout.strip()
    try:
        subprocess.run(["mount", device, where], check=True)
        if node is not None:
            node.run("mount", device, inside or where)
        yield where
    finally:
        # Lazily: a test that failed may have left a guest that writes to it.
        if node is not None:
            node.run("umount", "--lazy", inside or where)
        subprocess.run(["umount", "--lazy", where], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)
        file.unlink()
        where.rmdir()
