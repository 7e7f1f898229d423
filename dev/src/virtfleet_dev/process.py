"""Start, find, kill and stop programs that outlive the tool that started them.

A program is known by its pid and its start time (field 22 of /proc/<pid>/stat): a recycled pid is never signalled.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 15.0  # etcd and kube-apiserver need about 3 s to stop on a busy machine


class ProgramError(Exception):
    """A program ended, or did not become ready, when it should have."""


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True)
class Program:
    """A program of a cluster: its record in `run/<name>.json`, its output in `log/<name>.log`."""

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """Return the file that holds its output."""
        return self.directory / "log" / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return self.directory / "run" / f"{self.name}.json"

    @property
    def pid(self) -> int | None:
        """Return the pid while the program runs, else None."""
        try:
            record = json.loads(self._record.read_text())
        except FileNotFoundError:
            return None
        return record["pid"] if _start_time(record["pid"]) == record["start"] else None

    def start(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
        """Start the program in a session of its own unless it runs; return its pid."""
        if (running := self.pid) is not None:
            return running
        for folder in (self.log.parent, self._record.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        self._record.write_text(json.dumps({"pid": child.pid, "start": _start_time(child.pid)}))
        return child.pid

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self.wait_gone(STOP_SECONDS)

    def stop(self) -> None:
        """Ask it to end, kill it when it does not, and forget it."""
        self._signal(signal.SIGTERM)
        if not self.wait_gone(STOP_SECONDS):
            self.kill()
        self._record.unlink(missing_ok=True)

    def wait_gone(self, seconds: float = STOP_SECONDS) -> bool:
        """Wait until it has ended; return whether it has."""
        end = time.monotonic() + seconds
        while (pid := self.pid) is not None and time.monotonic() < end:
            _reap(pid)
            time.sleep(0.02)
        return self.pid is None

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _signal(self, number: int) -> None:
        if (pid := self.pid) is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # started by an earlier run of the tool: init reaps it


def wait_until(ready: Callable[[], bool], seconds: float, what: str, program: Program | None = None) -> None:
    """Poll until `ready` holds; ProgramError with the program's last lines when it ends or time is up."""
    end = time.monotonic() + seconds
    while not ready():
        if program is not None and program.pid is None:
            raise ProgramError(f"{program.name} ended while waiting for {what}:\n{program.tail()}")
        if time.monotonic() > end:
            raise ProgramError(f"{what} took more than {seconds:.0f} s" + (f":\n{program.tail()}" if program else ""))
        time.sleep(0.05)
