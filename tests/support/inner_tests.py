"""Tests that run in the nested host, each reported as a test of this run.

One pytest runs them all there, one after the other, since the start of Python takes seconds on an emulated processor.
Those that have failed run once more when all have ended, as every test does.
"""

import ast
import compileall
import json
import queue
import shlex
import subprocess
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from inner_reports import MARK
from virtfleet_dev.nested_host import PYTHON_PACKAGES, NestedHost
from virtfleet_dev.paths import checkout

_FOLDER = "tests/hardware/inner"
_SOURCES = ("tests/support", "crds/src", "node-daemon/src", "dev/src")
_SECONDS = 1200.0
"""A test that reports nothing for so long hangs; where ten others want the CPU as well, all takes minutes."""


def cases(file: str) -> list[object]:
    """Return the tests of a file of the inner folder, as parameters named `case` of an outer test."""
    path = checkout() / _FOLDER / file
    names = [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    return [pytest.param(f"{_FOLDER}/{file}::{name}", id=name.removeprefix("test_")) for name in names]


class InnerTests:
    """A run of pytest in the nested host."""

    def __init__(self, host: NestedHost, chosen: Sequence[str]) -> None:
        for folder in _SOURCES:  # rather here than by an emulated processor, which reads what this leaves
            compileall.compile_dir(checkout() / folder, quiet=1)
        self._host = host
        self._chosen = tuple(chosen)
        self._reports: dict[str, dict[str, str]] = {}
        self._said: list[str] = []
        self._again = False
        """The host has died under the tests, and another has taken its place."""
        self._failed: dict[str, str] = {}
        """What was said of those that run once more."""
        self._begin()

    def _begin(self) -> None:
        words = (*_pytest(), *(case for case in self._chosen if case not in self._reports))
        environment = f"PYTHONPATH={':'.join((PYTHON_PACKAGES, *_SOURCES))}"
        script = f"cd {shlex.quote(str(checkout()))} && {environment} exec {shlex.join(words)}"
        self._process = subprocess.Popen(
            self._host.command(script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    def _begin_again(self) -> None:
        """Run what is left in a new host: the emulator itself has been seen to die, once in some twenty runs."""
        self._again = True
        self.stop()
        self._host.down()
        self._host.up()
        self._begin()

    def check(self, case: str) -> None:
        """Wait until the inner test has ended, and fail as it did."""
        if self._report(case)["outcome"] != "passed" and not self._failed:
            self._run_failed()
        report = self._report(case)
        if report["outcome"] != "passed":
            before = self._failed.get(case, "")
            pytest.fail(f"{report['outcome']} in the nested host:\n{report['text']}\n{before}", pytrace=False)

    def _run_failed(self) -> None:
        """Wait for the end of the run, and run what has failed in it once more."""
        for case in self._chosen:
            self._report(case)
        self._process.wait()
        for case in [case for case in self._chosen if self._reports[case]["outcome"] != "passed"]:
            self._failed[case] = self._reports.pop(case)["text"]
        self._begin()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _report(self, case: str) -> dict[str, str]:
        while case not in self._reports:
            try:
                line = self._lines.get(timeout=_SECONDS)
            except queue.Empty:
                line = None
            if line is None and not self._again:
                self._begin_again()
                continue
            if line is None:
                self._lines.put(None)  # the others hear of it as well
                pytest.fail(f"{case} did not end in the nested host:\n{''.join(self._said[-100:])}", pytrace=False)
            if line.startswith(MARK):
                report = json.loads(line.removeprefix(MARK))
                self._reports[report["case"]] = report
            else:
                self._said.append(line)
        return self._reports[case]

    @staticmethod
    def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)


def _pytest() -> Iterable[str]:
    """Return the words that start it, without what only the outer run has: its fixtures, and a place to write to."""
    yield from ("python3", "-B", "-u", "-m", "pytest", "-q", "-p", "inner_reports", "-p", "no:cacheprovider")
    yield f"--confcutdir={Path(_FOLDER)}"
