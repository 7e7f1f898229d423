"""Start, find, kill and stop programs that outlive the tool that started them.

A program is known by its pid and its start time (field 22 of /proc/<pid>/stat): a recycled pid is never signalled.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LEADING = frozenset({"bash", "nsenter"})
"""Programs that lead to another one, which is their only child."""

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


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _only_child(pid: int) -> int | None:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(words[0]) if words else None


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

    @property
    def inner_pid(self) -> int | None:
        """Return the pid of the program itself, behind what keeps it running and led to it; None while it is down."""
        pid = self.pid
        while pid is not None and _comm(pid) in _LEADING:
            pid = _only_child(pid)
        return pid

    def start(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None, *, kept: bool = False) -> int:
        """Start the program in a session of its own unless it runs; return its pid.

        A program that is `kept` is started again whenever it ends; its pid is then that of what keeps it.
        """
        if (running := self.pid) is not None:
            return running
        keeper: list[str | Path] = ["bash", Path(__file__).with_name("keep.sh")] if kept else []
        for folder in (self.log.parent, self._record.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                [str(word) for word in (*keeper, *command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        self._record.write_text(json.dumps({"pid": child.pid, "start": _start_time(child.pid)}))
        return child.pid

    def kill(self) -> None:
        """Kill it and what keeps it with SIGKILL, and wait until they are gone."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.wait_gone(STOP_SECONDS)

    def stop(self) -> None:
        """Ask it to end, kill it when it does not, and forget it."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
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
