"""QEMU's own protocol, as much of it as it takes to save a machine's state."""

import json
import socket
import time
from pathlib import Path
from typing import Any

_ANSWER_SECONDS = 60.0


class QmpError(Exception):
    """QEMU refused a command, or did not answer."""


class Qmp:
    """A connection to a QEMU."""

    def __init__(self, path: Path) -> None:
        """Connect to QEMU's socket."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rw")
        self._lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Return what a command answers; QmpError when it fails."""
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while line := self._lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise QmpError(f"QEMU ended during {command}")

    def save(self, path: Path, seconds: float = 120.0) -> None:
        """Stop the machine and write its state into a file, to be given to `-incoming`."""
        self.execute("stop")
        self.execute("migrate-set-parameters", **{"max-bandwidth": 0})
        self.execute("migrate", uri=f"file:{path}")
        end = time.monotonic() + seconds
        while (found := self.execute("query-migrate"))["status"] != "completed":
            if found["status"] in ("failed", "cancelled") or time.monotonic() > end:
                raise QmpError(f"the state was not saved: {found}")
            time.sleep(0.05)

    def resume(self, seconds: float = 60.0) -> None:
        """Let a machine go on from the state that it was given with `-incoming`."""
        end = time.monotonic() + seconds
        while (found := self.execute("query-status"))["status"] == "inmigrate":
            if time.monotonic() > end:
                raise QmpError(f"the state was not read: {found}")
            time.sleep(0.05)
        self.execute("cont")

    def close(self) -> None:
        """Let QEMU go."""
        self._lines.close()
        self._socket.close()
