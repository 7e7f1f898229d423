"""The host that the tests themselves run on, with its system's libvirtd, as a node for machine_rig."""

from dataclasses import dataclass
from pathlib import Path

from virtfleet_api.image import ImageFormat
from virtfleet_dev.nested_image import guest_kernel
from virtfleet_node.core.stored import ImageFiles

READY = "L2-READY"
"""What the guest prints when it has told what it sees; see guest.S."""


@dataclass(frozen=True)
class ThisHost:
    """A machine_rig.RigNode."""

    directory: Path
    name: str = "nested"
    uri: str = "qemu:///system"

    def prepare(self) -> None:
        """Make the folders, and lead to libvirtd's own."""
        (self.directory / "run").mkdir(parents=True)
        (self.directory / "run" / "qemu").symlink_to("/run/libvirt/qemu")

    @property
    def root(self) -> Path:
        return Path("/")

    def command(self, *words: str | Path) -> list[str | Path]:
        return list(words)

    def pids(self, program: str) -> tuple[int, ...]:
        return tuple(
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/comm")
            if _read(path).strip() == program and path.parent.name.isdigit()
        )


def tiny_guest(kernel_uid: str) -> dict[str, ImageFiles]:
    """Return the guest of the nested host as a kernel without an initramfs."""
    return {kernel_uid: ImageFiles(guest_kernel(), ImageFormat.KERNEL, 0)}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it ended while we looked
