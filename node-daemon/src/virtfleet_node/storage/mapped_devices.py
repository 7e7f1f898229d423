"""Block volumes, as the kubelet maps them for a pod: which device of the host each is."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NUMBERS: Final = Path("/sys/dev/block")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def mapped_device(plugins: Path, pod_uid: str) -> Path | None:
    """Return the device that is mapped for a pod, as the host names it; None when there is none.

    The kubelet mounts the device in a plugin's folder, `…/volumeDevices/…/<pod uid>`, and links to it from the pod's.
    The mount tells which device it is by its number: the link may lead where this process sees nothing, and leads to
    what has that name now after a reboot.
    """
    for place in _mounted_below(plugins.resolve()):
        if place.name != pod_uid or "volumeDevices" not in place.parts:
            continue
        found = place.stat()
        if stat.S_ISBLK(found.st_mode):
            return _device(found.st_rdev)
    return None


def _mounted_below(folder: Path) -> Iterator[Path]:
    for line in _MOUNTS.read_text().splitlines():
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[4])
        if text.startswith(f"{folder}/"):
            yield Path(text)


def _device(number: int) -> Path:
    """Return a device's name below /dev, which the kernel gives it."""
    uevent = _NUMBERS / f"{os.major(number)}:{os.minor(number)}" / "uevent"
    words = (line.partition("=") for line in uevent.read_text().splitlines())
    name = next((value for key, _, value in words if key == "DEVNAME"), None)
    if name is None:
        raise FileNotFoundError(uevent)  # it is being removed
    return Path("/dev") / name
