"""Domains that libvirtd takes for starting although nobody starts them.

A libvirtd that dies after it has written a domain's first status, and before it knows QEMU's pid, leaves such a one:
its successor (seen with 9.0) skips what has no pid, calls the domain paused, holds the job of the former start for ever
and lets every call on the domain time out. QEMU was never executed: it waited for a handshake that did not come.
libvirt has no call for this; the status must be forgotten and libvirtd started again, which guests do not notice.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from lxml import etree

from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.desired.identity import build_domain_name, parse_domain_name

STATE_DIRECTORY: Final = Path("/run/libvirt/qemu")
"""Where the QEMU driver of the system's libvirtd keeps the status of running domains, and its own pid."""

_STATUS_BYTES: Final = 1 << 20
"""A status has about 20 KiB."""


class LibvirtdState:
    """What libvirtd keeps of running domains."""

    def __init__(self, directory: Path = STATE_DIRECTORY) -> None:
        self._directory = directory

    def forget_phantoms(self) -> tuple[str, ...]:
        """Have libvirtd start anew without the phantoms, and return their names; do nothing if there is none.

        Whoever supervises libvirtd starts it again. Blocks.
        """
        found = tuple(path for path in self._directory.glob("vf-*.xml") if self._is_phantom(path))
        for path in found:
            path.unlink()
        if found:
            self.kill()
        return tuple(path.stem for path in found)

    def read_pid(self, uid: str) -> int | None:
        """Return the pid of a machine's QEMU; None when there is none. Blocks for a moment."""
        with suppress(OSError, ValueError):
            return int((self._directory / f"{build_domain_name(uid)}.pid").read_text())
        return None

    def kill(self) -> None:
        """Kill libvirtd: after a clean end systemd would not start it again."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self._directory / "driver.pid").read_text()), signal.SIGKILL)

    def _is_phantom(self, path: Path) -> bool:
        """Tell whether a status without a pid is older than the libvirtd that runs: its own starts are younger."""
        try:
            driver = (self._directory / "driver.pid").stat()
            if parse_domain_name(path.stem) is None or path.stat().st_mtime_ns >= driver.st_mtime_ns:
                return False
            with path.open("rb") as file:
                status = parse(file.read(_STATUS_BYTES))
        except (FileNotFoundError, etree.XMLSyntaxError):
            return False  # written just now, or by somebody else
        return (status.tag, status.get("reason"), status.get("pid")) == ("domstatus", "starting up", "0")
